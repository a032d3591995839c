"""The diagonally implicit methods that have names, each a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian
from dyn_numerics.ode.steppers.diagonally_implicit_runge_kutta import DiagonallyImplicitRungeKutta
from dyn_numerics.ode.tableaus.additive import KENCARP4
from dyn_numerics.ode.tableaus.additive_tableau import AdditiveTableau
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.tableaus.diagonally_implicit import IMPLICIT_EULER, KVAERNO3, KVAERNO5, TRAPEZOID

__all__ = ["ImplicitEuler", "KenCarp4", "Kvaerno3", "Kvaerno5", "Trapezoid"]


class _Named(DiagonallyImplicitRungeKutta):
    """A method with a table of its own."""

    table: ClassVar[ButcherTableau | AdditiveTableau]

    def __init__(self, jac: FieldJacobian | Callable[..., Any] | None = None) -> None:
        super().__init__(self.table, jac)


class ImplicitEuler(_Named):
    """The implicit Euler method: order 1, one stage, L-stable, fixed steps.

    Args:
        jac: As in `DiagonallyImplicitRungeKutta`.

    References:
        C. F. Curtiss, J. O. Hirschfelder: Integration of stiff equations (1952).
    """

    table = IMPLICIT_EULER


class Trapezoid(_Named):
    """The trapezoidal rule: order 2, one implicit stage, A-stable, fixed steps.

    Args:
        jac: As in `DiagonallyImplicitRungeKutta`.

    References:
        J. Crank, P. Nicolson: A practical method for numerical evaluation of solutions of partial differential
        equations of the heat-conduction type (1947).
    """

    table = TRAPEZOID


class Kvaerno3(_Named):
    """Kvaerno's 3(2) pair: adaptive, order 3, three implicit stages, L-stable, dense output of order 3.

    Args:
        jac: As in `DiagonallyImplicitRungeKutta`.

    References:
        A. Kvaerno: Singly diagonally implicit Runge-Kutta methods with an explicit first stage (2004).
    """

    table = KVAERNO3


class Kvaerno5(_Named):
    """Kvaerno's 5(4) pair: adaptive, order 5, six implicit stages, L-stable, dense output of order 3.

    Its third stage lies 0.23 steps beyond the end of the step, so that `f` is evaluated that far outside of `t_span`.

    Args:
        jac: As in `DiagonallyImplicitRungeKutta`.

    References:
        A. Kvaerno: Singly diagonally implicit Runge-Kutta methods with an explicit first stage (2004).
    """

    table = KVAERNO5


class KenCarp4(_Named):
    """Kennedy and Carpenter's implicit-explicit 4(3) pair for a `SplitField`: adaptive, order 4, dense output of order 3.

    The part `a` is solved for, by five stages of an L-stable method; the part `b` is evaluated once a stage.

    Args:
        jac: As in `DiagonallyImplicitRungeKutta`, of the part `a`.

    Example:
        >>> import torch
        >>> from dyn_numerics import SplitField, odeint
        >>> f = SplitField(lambda t, x: -1e5 * (x - torch.cos(t)), lambda t, x: -torch.sin(t) * torch.ones_like(x))
        >>> t, x = odeint(f, torch.ones(1, dtype=torch.float64), [0.0, 1.0], solver="kencarp4")
        >>> round(x[-1].item(), 4)
        0.5403

    References:
        C. A. Kennedy, M. H. Carpenter: Additive Runge-Kutta schemes for convection-diffusion-reaction equations (2003).
    """

    table = KENCARP4
