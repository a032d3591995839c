"""Steps on a grid."""

from __future__ import annotations

from math import inf
from typing import Any

from dyn_numerics.ode.controllers.controller import Controller, Verdict
from dyn_numerics.ode.scalar import Scalar

__all__ = ["FixedStep"]


class FixedStep(Controller):
    """Accepts every finite step and follows a grid: `t_span` itself, or `t0 + i * step_size` when `odeint` is given one.

    It is what methods without an error estimate use. Give it to an adaptive method to ignore the estimate.

    Example:
        >>> import torch
        >>> from dyn_numerics import FixedStep, odeint
        >>> sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 0.5, 1.0], solver="dopri5", controller=FixedStep())
        >>> sol.stats.n_steps.item()
        2
    """

    adaptive = False

    def judge(self, error: Scalar, error_order: int, memory: Any) -> Verdict:
        return Verdict(error < inf, inf, memory)  # as far as the next point of the grid
