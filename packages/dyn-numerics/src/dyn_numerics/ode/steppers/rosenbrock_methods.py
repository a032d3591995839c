"""The Rosenbrock methods that have names, each a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian
from dyn_numerics.ode.steppers.rosenbrock import Rosenbrock
from dyn_numerics.ode.tableaus.rosenbrock import RODAS5P, ROSENBROCK23
from dyn_numerics.ode.tableaus.rosenbrock_tableau import RosenbrockTableau

__all__ = ["Rodas5P", "Rosenbrock23"]


class _Named(Rosenbrock):
    """A method with a table of its own."""

    table: ClassVar[RosenbrockTableau]

    def __init__(self, jac: FieldJacobian | Callable[..., Any] | None = None) -> None:
        super().__init__(self.table, jac)


class Rosenbrock23(_Named):
    """Shampine and Reichelt's 2(3) pair, as in ode23s: stiff, adaptive, order 2, L-stable, dense output of order 2.

    Three evaluations a step, one of them with the Jacobian. For crude tolerances.

    Args:
        jac: As in `Rosenbrock`.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> x0 = torch.zeros(1, dtype=torch.float64)
        >>> sol = odeint(lambda t, x: -1e6 * (x - torch.cos(t)), x0, [0.0, 1.0], solver="rosenbrock23")
        >>> round(sol.x[-1].item(), 3), bool(sol.stats.n_steps < 50)
        (0.54, True)

    References:
        L. F. Shampine, M. W. Reichelt: The MATLAB ODE suite (1997).
    """

    table = ROSENBROCK23


class Rodas5P(_Named):
    """Steinebach's 5(4) pair: stiff, adaptive, order 5, stiffly accurate, L-stable, dense output of order 4.

    Eight evaluations a step, one of them with the Jacobian. Its order does not fall on the problem of Prothero and Robinson
    as much as that of others.

    Args:
        jac: As in `Rosenbrock`.

    Example:
        >>> import torch
        >>> from dyn_numerics import Rodas5P, odeint
        >>> rates = torch.tensor([1.0, 1e3, 1e6], dtype=torch.float64)
        >>> solver = Rodas5P(jac=lambda t, x: -torch.diag(rates))
        >>> t, x = odeint(lambda t, x: -rates * x, torch.ones_like(rates), [0.0, 1.0], solver=solver, rtol=1e-6)
        >>> round(x[-1, 0].item(), 5)
        0.36788

    References:
        G. Steinebach: Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
        Differential Equations package (2023).
    """

    table = RODAS5P
