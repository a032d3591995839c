"""A partitioned problem with a known solution, whose two parts depend on time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from dyn_numerics.ode.split_field import Part

__all__ = ["ForcedRadialOscillator"]

REPULSION = 0.3


class ForcedRadialOscillator:
    """The distance `q` of an oscillator that turns about the origin, at a pace `g = 1 + cos(t) / 2`, for split methods.

        q' = g(t) p,
        p' = g(t) (w / q^3 - q).

    In the time `t + sin(t) / 2`, `q^2` is a constant and a sine of twice that time.

    Attributes:
        starts: Four start states, `[4, 2]`.

    Example:
        >>> import torch
        >>> problem = ForcedRadialOscillator()
        >>> t, x = torch.tensor(0.0), torch.tensor(problem.starts[0])
        >>> torch.equal(problem(t, x, "a") + problem(t, x, "b"), problem(t, x))
        True

    References:
        H. Goldstein: Classical Mechanics, 2nd ed. (1980), section 3.2, for the radial equation.
    """

    starts: ClassVar[Sequence[Sequence[float]]] = [[0.9, 0.3], [1.2, -0.4], [0.7, 0.2], [1.0, 0.8]]

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        """The field, `[*lead, 2]`, at times `[*lead]` and states `[*lead, 2]`, or what one part adds to it."""
        q, p = x[..., 0], x[..., 1]
        pace = 1 + 0.5 * torch.cos(t)
        dq = torch.zeros_like(q) if part == ("b",) else pace * p
        dp = torch.zeros_like(p) if part == ("a",) else pace * (REPULSION / q**3 - q)
        return torch.stack([dq, dp], dim=-1)

    def exact(self, t: Tensor, t0: float, x0: Tensor) -> Tensor:
        """The solution `[T, 2]` at times `[T]`, from `x0`, `[2]`, real or complex, at `t0`."""
        q, p = x0.unbind()
        passed = t - t0 + 0.5 * (torch.sin(t) - math.sin(t0))
        cos, sin = torch.cos(2 * passed), torch.sin(2 * passed)
        speed = p * p + REPULSION / (q * q)
        middle, swing = (q * q + speed) / 2, (q * q - speed) / 2
        distance = (middle + swing * cos + q * p * sin) ** 0.5
        return torch.stack([distance, (q * p * cos - swing * sin) / distance], dim=-1)
