"""Cubic Hermite interpolation of a step from the state and the field at both ends."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar

__all__ = ["cubic_hermite"]


def cubic_hermite(x0: Tensor, x1: Tensor, f0: Tensor, f1: Tensor, dt: Scalar) -> Tensor:
    """Coefficients of the cubic with value and slope of the solution at both ends of a step.

    Its error within a step is O(dt^4), which keeps the global order of methods up to order 4.

    Args:
        x0: State at the start, `[*lead, N]`.
        x1: State at the end, `[*lead, N]`.
        f0: Field at the start, `[*lead, N]`, in state units per time unit.
        f1: Field at the end, `[*lead, N]`.
        dt: Step size, a host number or a tensor that broadcasts against the states.

    Returns:
        `[*lead, 4, N]`, the coefficients in theta, lowest power first.

    References:
        Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., equation (6.7) of section II.6.
    """
    rise, d0, d1 = x1 - x0, f0 * dt, f1 * dt
    return torch.stack([x0, d0, 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise], dim=-2)
