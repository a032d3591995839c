"""An initial value problem whose end is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ReferenceProblem"]


@dataclass(frozen=True)
class ReferenceProblem:
    """A field, a start, and where its solution ends.

    Args:
        name: Name of the problem.
        field: Vector field `f(t, x)` of states `[n]`.
        start: State at `t = 0`, n numbers.
        end: Time at the end.
        last: State at the end, n numbers.
        source: Where these were published.
        floor: Size, in state units, below which components are judged by it instead of their own: the absolute tolerance
            of a solve over its relative one.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.reference_problem import ReferenceProblem
        >>> growth = ReferenceProblem("growth", lambda t, x: 3 * t**2 * x, (1.0,), 2.0, (2980.957987041728,), "exp(t^3)")
        >>> round(growth.error(torch.tensor([2983.0], dtype=torch.float64)), 5)
        0.00068
    """

    name: str
    field: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, ...]
    end: float
    last: tuple[float, ...]
    source: str
    floor: float = 1.0

    @property
    def x0(self) -> Tensor:
        """State at the start, `[n]`, float64."""
        return torch.tensor(self.start, dtype=torch.float64)

    def times(self, steps: int = 1) -> Tensor:
        """Times from 0 to the end, `[steps + 1]`, evenly spaced, float64."""
        return torch.linspace(0, self.end, steps + 1, dtype=torch.float64)

    def error(self, x: Tensor) -> float:
        """The largest error of a state `[n]` at the end, scaled as tolerances are: by the floor and its size together."""
        last = torch.tensor(self.last, dtype=torch.float64)
        return ((x - last).abs() / (self.floor + last.abs())).max().item()
