"""Duffing's oscillators: springs that stiffen."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Self

import torch
from torch import Tensor

__all__ = ["Duffing"]


@dataclass(frozen=True, eq=False)
class Duffing:
    """`q'' = -stiffness q - cubic q^3` for each oscillator of a batch, as a field of `(q, q')`.

    Args:
        stiffness: Of small deflections, `[batch]`, per unit of time squared.
        cubic: What it gains with the square of the deflection, `[batch]`.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.duffing import Duffing
        >>> problem, x0 = Duffing.family(3, seed=0)
        >>> problem(torch.tensor(0.0), x0).shape
        torch.Size([3, 2])

    References:
        G. Duffing: Erzwungene Schwingungen bei veränderlicher Eigenfrequenz (1918).
    """

    stiffness: Tensor
    cubic: Tensor

    @classmethod
    def family(cls, count: int, seed: int) -> tuple[Self, Tensor]:
        """Draws oscillators, and a start `[count, 2]` for each, in float64.

        Stiffness is uniform in [0.8, 1.2], the cubic term in [0, 0.3]; starts are at distances in [0.5, 1.5] of rest.
        """
        u = torch.rand(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        angle, distance = 2 * pi * u[:, 2], 0.5 + u[:, 3]
        x0 = torch.stack([distance * angle.cos(), distance * angle.sin()], -1)
        return cls(0.8 + 0.4 * u[:, 0], 0.3 * u[:, 1]), x0

    def take(self, places: Tensor) -> Self:
        """The oscillators at some places, `[m]`."""
        return type(self)(self.stiffness[places], self.cubic[places])

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[batch, 2]`."""
        q, velocity = x.unbind(-1)
        return torch.stack([velocity, -(self.stiffness + self.cubic * q * q) * q], -1)
