"""What `odeint` returns where it integrates a loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dyn_numerics import Solution

__all__ = ["IntegralSolution"]


@dataclass(frozen=True, eq=False)
class IntegralSolution(Solution):
    """A solution with the integral of a loss along it.

    Attributes:
        integral: `∫ l(s, x(s)) ds` from `t[0]` to every output time, `[T, *shape of l]`; differentiable.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> energy = lambda t, x: x.square().sum()
        >>> sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], integral_loss=energy, rtol=1e-6)
        >>> [round(value, 4) for value in sol.integral.tolist()]  # (1 - exp(-2 t)) / 2
        [0.0, 0.4323]
    """

    integral: Tensor | None = None
