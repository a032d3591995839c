"""The driver that repeats attempts in Python, with one host read a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.batch import put_rows, take_rows
from dyn_numerics.ode.attempt import Problem, State, attempt, commit
from dyn_numerics.ode.diagnosis import is_doubtful, probe, probe_lengths, suspect
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.transforms import any_lane, under_transform

__all__ = ["diagnose", "solve"]


def solve(problem: Problem, state: State, observers: Sequence[Observer], compact: bool = False) -> tuple[State, int]:
    """Repeats attempts until every problem has ended, or as often as it may.

    Args:
        problem: What stays the same.
        state: Where to start.
        observers: Told of every attempt.
        compact: Whether samples that have ended leave the batch, whenever they are half of it.

    Returns:
        The last state, and the calls of `f`.
    """
    n_attempts = n_evals = 0
    whole, samples = state, None  # the states of all samples, and which of them are still in the batch
    running, careful = _look(state, compact)
    while running and n_attempts < problem.max_steps:
        if compact and running <= len(state.x) // 2:
            whole = state if samples is None else put_rows(whole, samples, state)
            left = state.running.nonzero().squeeze(1)  # type: ignore[union-attr]
            samples = left if samples is None else samples[left]
            problem, state = problem.take(left), take_rows(state, left)
        tried = attempt(problem, state)
        attempted = AttemptedStep.of(problem, state, tried, samples)
        for observer in observers:
            observer.observe(attempted)
        tried = tried._replace(n_evals=tried.n_evals + attempted.n_evals)
        n_attempts, n_evals = n_attempts + 1, n_evals + tried.n_evals
        state = commit(problem, state, tried, careful)
        running, careful = _look(state, compact)
    return state if samples is None else put_rows(whole, samples, state), n_evals


def diagnose(problem: Problem, state: State, code: Any) -> tuple[Any, int]:
    """Looks for the cause where a solve ran out of step size or of steps.

    Args:
        problem: The problem.
        state: The state in which it ended.
        code: Code of how it ended, an integer or `[*lead]`.

    Returns:
        The code, where there is a suspicion that of the suspicion, and the calls of `f` it took.
    """
    doubtful = is_doubtful(problem, code)
    if not (doubtful.any() if isinstance(doubtful, Tensor) else doubtful):
        return code, 0
    f = Counter(problem.f)
    short, tried, long = (probe(problem, f, state, dt) for dt in probe_lengths(problem, state))
    return suspect(problem, code, short, tried, long), f.calls


def _look(state: State, exactly: bool) -> tuple[int, bool]:
    """How many problems have not ended, or only whether any; and whether any had attempts that were not finite.

    One host read, if it is one of tensors.
    """
    running, stalled = state.running, state.stalled
    if not isinstance(running, Tensor):
        return int(running), bool(stalled)
    if under_transform():
        return int(any_lane(running)), True
    count = running.sum() if exactly else running.any()
    n, careful = torch.stack([count, stalled.any()]).tolist()
    return int(n), bool(careful)
