"""A solution as the tensors that a differentiable function inside of torch.compile returns."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dyn_numerics import Solution, Statistics
from dyn_numerics.pytree_state import StateLayout

__all__ = ["packed", "unpacked"]


def packed(solution: Solution, layout: StateLayout) -> tuple[Tensor, ...]:
    """A solution as tensors, which an autograd function can return: the states flat, `[T, *lead, N]`, and the rest."""
    ends = (solution.status_code, solution.t_reached, solution.dt_last)
    return layout.flatten(solution.x), *ends, *solution.stats.counts.values()


def unpacked(tensors: Sequence[Tensor], t: Tensor, layout: StateLayout) -> Solution:
    """The solution that was `packed`, with the times as the user gets them back."""
    x, code, t_reached, dt_last, *counts = tensors
    return Solution(t, layout.unflatten(x), Statistics(*counts), code, t_reached, dt_last)
