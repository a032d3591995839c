"""The interpolant that a Runge-Kutta table brings along: continuous weights of its stages."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar

__all__ = ["runge_kutta_dense"]


def runge_kutta_dense(x0: Tensor, stages: Tensor, weights: Tensor, dt: Scalar) -> Tensor:
    """Coefficients of `x0 + dt * sum_i b_i(theta) k_i`.

    Args:
        x0: State at the start of the step, `[N]`.
        stages: Stage derivatives `k_i`, `[s, N]`.
        weights: Coefficients of `b_i(theta)` at theta, theta^2, ..., `[s, p]`.
        dt: Step size.

    Returns:
        `[p + 1, N]`, the coefficients in theta, lowest power first.

    References:
        Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section II.6.
    """
    return torch.cat([x0.unsqueeze(0), (weights * dt).t() @ stages])
