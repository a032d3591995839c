"""OREGO: the Oregonator, a chemical reaction that oscillates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["OREGO_TO_360", "Oregonator"]


@dataclass(frozen=True)
class Oregonator:
    """The reaction of Belousov and Zhabotinsky in three scaled concentrations.

    Args:
        s: Ratio of the rates of the first two.
        q: What limits the growth of the first.
        w: Rate of the third.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.orego import Oregonator
        >>> Oregonator(s=2.0, q=0.5, w=3.0)(torch.tensor(0.0), torch.tensor([2.0, 1.0, 4.0]))
        tensor([-2.0000,  0.5000, -6.0000])

    References:
        - R. J. Field, R. M. Noyes: Oscillations in chemical systems IV, Journal of Chemical Physics 60 (1974), 1877-1884.
        - Hairer, Wanner: Solving ODEs II, 2nd ed., section IV.10.
    """

    s: float = 77.27
    q: float = 8.375e-6
    w: float = 0.161

    def components(self, x: Any, y: Any, z: Any) -> list[Any]:
        """The slopes of the three, in arithmetic that any array library does."""
        return [self.s * (y + x * (1 - self.q * x - y)), (z - (1 + x) * y) / self.s, self.w * (x - z)]

    def partials(self, x: Any, y: Any, z: Any) -> list[list[Any]]:
        """The derivatives of every slope by each of the three, row by row, in the same arithmetic."""
        return [
            [self.s * (1 - 2 * self.q * x - y), self.s * (1 - x), 0.0],
            [-y / self.s, -(1 + x) / self.s, 1 / self.s],
            [self.w, 0.0, -self.w],
        ]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[..., 3]`."""
        return torch.stack(self.components(*x.unbind(-1)), -1)


OREGO_TO_360 = ReferenceProblem(
    name="OREGO",
    field=Oregonator(),
    start=(1.0, 2.0, 3.0),
    end=360.0,
    last=(1.000814870318523, 1228.178521549917, 132.0554942846706),
    source="Test Set for IVP Solvers, University of Bari",
    floor=1e-6,
)
"""A little more than a period, 303, in which the first concentration spans five orders of magnitude."""
