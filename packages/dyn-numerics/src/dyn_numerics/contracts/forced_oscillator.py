"""An oscillator with a known solution, whose growth depends on time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from dyn_numerics.ode.split_field import Part

__all__ = ["ForcedOscillator"]


class ForcedOscillator:
    """Rotation at speed 1 with growth `cos(t) (1 - r^2)`: nonlinear, coupled, and different at every time.

    With `r^2 = u^2 + v^2`,

        u' = cos(t) (1 - r^2) u - v,
        v' = cos(t) (1 - r^2) v + u.

    `r^2` is logistic in `2 sin t`, and the angle grows with time. Of a sum of two parts growth is the first, rotation the
    second.

    Attributes:
        starts: Four start states, `[4, 2]`.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> problem = ForcedOscillator()
        >>> x0, t = torch.tensor(problem.starts[0], dtype=torch.float64), torch.linspace(0, 2, 5, dtype=torch.float64)
        >>> _, x = odeint(problem, x0, t, rtol=1e-9, atol=1e-9)
        >>> torch.allclose(x, problem.exact(t, 0.0, x0), atol=1e-7)
        True

    References:
        S. H. Strogatz: Nonlinear Dynamics and Chaos, 2nd ed. (2015), section 8.2, for the unforced case.
    """

    starts: ClassVar[Sequence[Sequence[float]]] = [[0.6, 0.3], [-0.4, 0.5], [0.9, -0.7], [-0.2, -0.8]]

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        """The field, `[*lead, 2]`, at times `[*lead]` and states `[*lead, 2]`, or one part of it."""
        u, v = x[..., 0], x[..., 1]
        growth = torch.cos(t) * (1 - u * u - v * v)
        if part:
            return torch.stack([growth * u, growth * v] if part == ("a",) else [-v, u], dim=-1)
        return torch.stack([growth * u - v, growth * v + u], dim=-1)

    def exact(self, t: Tensor, t0: float, x0: Tensor) -> Tensor:
        """The solution `[T, 2]` at times `[T]`, from `x0`, `[2]`, real or complex, at `t0`."""
        u, v = x0.unbind()
        growth = torch.exp(2 * (torch.sin(t) - math.sin(t0)))
        scale = (growth / (1 + (u * u + v * v) * (growth - 1))) ** 0.5
        cos, sin = torch.cos(t - t0), torch.sin(t - t0)
        return torch.stack([scale * (cos * u - sin * v), scale * (sin * u + cos * v)], dim=-1)
