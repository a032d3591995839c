"""Gradients of parameters as an integral over the steps of a backward solve."""

from __future__ import annotations

import torch

from dyn_numerics.ode.interpolants.gauss_legendre import gauss_legendre
from dyn_numerics.ode.interpolants.polynomial import evaluate
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.times import state_time, time_dtype
from dyn_sensitivity.ode.adjoint_equation import AdjointEquation

__all__ = ["ParameterQuadrature"]


class ParameterQuadrature(Observer):
    """Adds the integral of `-a df/dtheta` over every accepted step, by Gauss's rule on the step's interpolant.

    The rule has one node more than half the degree of the interpolant, so that its own error is of a higher order.

    Args:
        equation: The equation of the adjoint.

    Attributes:
        total: The integrals so far, in the order of what gradients go to.
    """

    def __init__(self, equation: AdjointEquation) -> None:
        self._equation = equation
        self.total = equation.no_gradients()

    def observe(self, attempted: AttemptedStep) -> None:
        """Adds what the step contributes, if it was accepted."""
        if attempted.moved is False:
            return
        coefficients, x = attempted.interpolant, attempted.x0
        t0, length = attempted.t0, attempted.t1 - attempted.t0
        for node, weight in zip(*gauss_legendre(coefficients.shape[-2] // 2 + 1), strict=True):
            theta = torch.full((), node, dtype=time_dtype(x.device), device=x.device)
            t, vector = state_time(t0 + node * length, x), evaluate(coefficients, theta).to(x.dtype)
            shares = self._equation.gradients(t, vector)
            self.total = [a + (weight * length) * share for a, share in zip(self.total, shares, strict=True)]
