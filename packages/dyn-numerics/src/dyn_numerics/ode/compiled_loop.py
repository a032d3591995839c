"""The driver that repeats attempts inside of torch.compile: the whole solve is one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.loop import while_loop
from dyn_numerics.ode.attempt import Problem, State, attempt, commit
from dyn_numerics.ode.diagnosis import Probe, is_doubtful, probe, probe_lengths, suspect
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.scalar import where

__all__ = ["diagnose", "solve"]


def solve(problem: Problem, state: State, observers: Sequence[Observer]) -> tuple[State, Tensor]:
    """Repeats attempts until every problem has ended, or as often as it may, as `torch.while_loop`.

    Args:
        problem: What stays the same; it selects.
        state: Where to start.
        observers: Told of every attempt; what they keep they write into buffers.

    Returns:
        The last state, and the calls of `f`, `[]`.
    """

    def going(n_attempts: Tensor, n_evals: Tensor, now: State) -> Tensor:
        return now.running.any() & (n_attempts < limit)  # type: ignore[union-attr]

    def body(n_attempts: Tensor, n_evals: Tensor, now: State) -> tuple[Tensor, Tensor, State]:
        tried = attempt(problem, now)
        attempted = AttemptedStep.of(problem, now, tried)
        for observer in observers:
            observer.observe(attempted)
        tried = tried._replace(n_evals=tried.n_evals + attempted.n_evals)
        return n_attempts + 1, n_evals + tried.n_evals, commit(problem, now, tried)

    limit = int(min(problem.max_steps, torch.iinfo(torch.int64).max))
    none = torch.zeros((), dtype=torch.int64, device=state.x.device)
    _, n_evals, state = while_loop(going, body, (none, none, state))
    return state, n_evals


def diagnose(problem: Problem, state: State, code: Tensor) -> tuple[Tensor, Tensor]:
    """Looks for the cause where a solve ran out of step size or of steps, in the same program; else takes no step.

    Args:
        problem: The problem.
        state: The state in which it ended.
        code: Code of how it ended, `[*lead]`.

    Returns:
        The code, where there is a suspicion that of the suspicion, and the calls of `f` it took, `[]`.
    """
    lengths = probe_lengths(problem, state)

    def going(i: Tensor, n_evals: Tensor, *probes: Probe) -> Tensor:
        return (i < len(lengths)) & is_doubtful(problem, code).any()  # type: ignore[union-attr]

    def body(i: Tensor, n_evals: Tensor, *probes: Probe) -> tuple[Any, ...]:
        f, (short, tried, long) = Counter(problem.f), lengths
        found = probe(problem, f, state, where(i == 0, short, where(i == 1, tried, long)))
        return i + 1, n_evals + f.calls, *probes[1:], found

    none = torch.zeros((), dtype=torch.int64, device=state.x.device)
    empty = Probe(*[0 * lengths[0]] * len(Probe._fields))
    _, n_evals, *probes = while_loop(going, body, (none, none, *[empty] * len(lengths)))
    return suspect(problem, code, *probes), n_evals
