"""Polynomials over one step, in theta = (t - t0) / (t1 - t0).

Every interpolant is stored as its coefficients, lowest power first.
"""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.dtypes import real_dtype

__all__ = ["evaluate", "evaluate_derivative"]


def evaluate(coefficients: Tensor, theta: Tensor) -> Tensor:
    """Evaluates polynomials, each at one point, by Horner's rule.

    Args:
        coefficients: `[..., p + 1, N]`, lowest power first.
        theta: `[...]`, real; broadcasts against the leading dimensions of the coefficients.

    Returns:
        `[..., N]`.
    """
    theta = theta.to(real_dtype(coefficients.dtype)).unsqueeze(-1)
    *lower, value = coefficients.unbind(-2)
    for coefficient in reversed(lower):
        value = coefficient + value * theta
    return value


def evaluate_derivative(coefficients: Tensor, theta: Tensor) -> Tensor:
    """Evaluates the derivative with respect to theta; shapes as in `evaluate`."""
    theta = theta.to(real_dtype(coefficients.dtype)).unsqueeze(-1)
    _, *lower, value = coefficients.unbind(-2)
    value = value * (len(lower) + 1)
    for power, coefficient in reversed(list(enumerate(lower, start=1))):
        value = coefficient * power + value * theta
    return value
