"""Polynomials over one step, in theta = (t - t0) / (t1 - t0).

Every interpolant is stored as its coefficients, lowest power first, so that evaluating one costs one product.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["evaluate", "evaluate_derivative"]


def evaluate(coefficients: Tensor, theta: Tensor) -> Tensor:
    """Evaluates a polynomial at several points.

    Args:
        coefficients: `[..., p + 1, N]`, lowest power first.
        theta: `[..., m]`, real.

    Returns:
        `[..., m, N]`.
    """
    powers = _powers(theta, coefficients.shape[-2])  # [..., m, p + 1]
    return powers.to(coefficients.dtype) @ coefficients


def evaluate_derivative(coefficients: Tensor, theta: Tensor) -> Tensor:
    """Evaluates the derivative with respect to theta; shapes as in `evaluate`."""
    p = coefficients.shape[-2] - 1
    factors = torch.arange(1, p + 1, dtype=theta.dtype, device=theta.device)
    powers = _powers(theta, p) * factors  # [..., m, p]
    return powers.to(coefficients.dtype) @ coefficients[..., 1:, :]


def _powers(theta: Tensor, count: int) -> Tensor:
    """`theta^0 ... theta^(count - 1)` along a new last dimension."""
    return torch.stack([theta**i for i in range(count)], dim=-1)
