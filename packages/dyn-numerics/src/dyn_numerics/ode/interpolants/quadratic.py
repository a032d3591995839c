"""Interpolation of a step by the quadratic that two slopes make of its start."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar

__all__ = ["quadratic"]


def quadratic(x0: Tensor, f0: Tensor, f1: Tensor, dt: Scalar) -> Tensor:
    """Coefficients of the quadratic from a state, with one slope at the start of a step and another at its end.

    It ends at `x0 + dt (f0 + f1) / 2`; its error within a step is O(dt^3), if that of the slopes is O(dt^2).

    Args:
        x0: State at the start, `[*lead, N]`.
        f0: Slope there, `[*lead, N]`, in state units per time unit.
        f1: Slope at the end, `[*lead, N]`.
        dt: Step size, a host number or a tensor that broadcasts against the states.

    Returns:
        `[*lead, 3, N]`, the coefficients in theta, lowest power first.

    Example:
        >>> import torch
        >>> quadratic(torch.zeros(1), torch.zeros(1), torch.full((1,), 2.0), 1.0)  # t^2
        tensor([[0.],
                [0.],
                [1.]])
    """
    return torch.stack([x0, f0 * dt, (f1 - f0) * (0.5 * dt)], dim=-2)
