"""The driver that repeats attempts inside of torch.compile: the whole solve is one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from dyn_numerics.ode.attempt import Problem, State, attempt, commit
from dyn_numerics.ode.observer import AttemptedStep, Observer

__all__ = ["OLDEST_TORCH", "is_supported", "solve"]

OLDEST_TORCH = (2, 13)
"""The oldest torch whose compiler the tests of compiled solves pass on."""


def is_supported() -> bool:
    """Whether this torch can compile a solve."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST_TORCH


def solve(problem: Problem, state: State, observers: Sequence[Observer]) -> tuple[State, Tensor]:
    """Repeats attempts until every problem has ended, or as often as it may, as `torch.while_loop`.

    Args:
        problem: What stays the same; it selects.
        state: Where to start.
        observers: Told of every attempt; what they keep they write into buffers.

    Returns:
        The last state, and the calls of `f`, `[]`.
    """
    leaves, structure = tree_flatten(state)
    is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]

    def state_of(carried: Sequence[Tensor]) -> State:
        rest = iter(carried)
        whole = [next(rest) if varies else leaf for varies, leaf in zip(is_tensor, leaves, strict=True)]
        found: State = tree_unflatten(whole, structure)
        return found

    def tensors_of(state: State) -> list[Tensor]:
        return [leaf.clone() for leaf in tree_flatten(state)[0] if isinstance(leaf, Tensor)]

    def going(n_attempts: Tensor, n_evals: Tensor, *carried: Tensor) -> Tensor:
        return state_of(carried).running.any() & (n_attempts < limit)  # type: ignore[union-attr]

    def body(n_attempts: Tensor, n_evals: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
        before = state_of(carried)
        tried = attempt(problem, before)
        attempted = AttemptedStep.of(problem, before, tried)
        for observer in observers:
            observer.observe(attempted)
        return n_attempts + 1, n_evals + tried.n_evals, *tensors_of(commit(problem, before, tried))

    limit = int(min(problem.max_steps, torch.iinfo(torch.int64).max))
    none: Any = torch.zeros((), dtype=torch.int64, device=state.x.device)
    _, n_evals, *carried = torch.while_loop(going, body, (none, none.clone(), *tensors_of(state)))  # type: ignore[no-untyped-call]
    return state_of(carried), n_evals
