"""The explicit methods that have names, each a table."""

from __future__ import annotations

from typing import ClassVar

from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.tableaus.dopri8 import DOPRI8
from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, TSIT5
from dyn_numerics.ode.tableaus.vern7 import VERN7

__all__ = ["Bosh3", "Dopri5", "Dopri8", "Euler", "Heun", "Midpoint", "Ralston", "RungeKutta4", "Tsit5", "Vern7"]


class _Named(ExplicitRungeKutta):
    """A method with a table of its own."""

    table: ClassVar[ButcherTableau]

    def __init__(self, trainable: bool = False) -> None:
        super().__init__(self.table, trainable)


class Euler(_Named):
    """Euler's method: order 1, one stage, fixed steps.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        L. Euler: Institutionum calculi integralis I (1768), section 650.
    """

    table = EULER


class Midpoint(_Named):
    """The explicit midpoint method: order 2, two stages, fixed steps.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        C. Runge: Über die numerische Auflösung von Differentialgleichungen (1895).
    """

    table = MIDPOINT


class Heun(_Named):
    """Heun's method, the explicit trapezoidal rule: order 2, two stages, fixed steps.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        K. Heun: Neue Methoden zur approximativen Integration der Differentialgleichungen (1900).
    """

    table = HEUN


class Ralston(_Named):
    """Ralston's method, of least error bound among two-stage ones: order 2, fixed steps.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        A. Ralston: Runge-Kutta methods with minimum error bounds (1962).
    """

    table = RALSTON


class RungeKutta4(_Named):
    """The classical Runge-Kutta method: order 4, four stages, fixed steps.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        W. Kutta: Beitrag zur näherungsweisen Integration totaler Differentialgleichungen (1901).
    """

    table = RK4


class Bosh3(_Named):
    """Bogacki and Shampine's 3(2) pair: adaptive, order 3, three evaluations a step, dense output of order 3.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        P. Bogacki, L. F. Shampine: A 3(2) pair of Runge-Kutta formulas (1989).
    """

    table = BOSH3


class Dopri5(_Named):
    """Dormand and Prince's 5(4) pair: adaptive, order 5, six evaluations a step, dense output of order 4.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        J. R. Dormand, P. J. Prince: A family of embedded Runge-Kutta formulae (1980).
    """

    table = DOPRI5


class Tsit5(_Named):
    """Tsitouras' 5(4) pair: adaptive, order 5, six evaluations a step, dense output of order 4.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        Ch. Tsitouras: Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption (2011).
    """

    table = TSIT5


class Vern7(_Named):
    """Verner's most efficient 7(6) pair: adaptive, order 7, ten evaluations a step, dense output of order 6.

    A step that holds an output takes five more evaluations. Where samples have steps of their own, that is one that holds
    an output of any sample; inside `torch.compile`, and with `save="dense"`, it is every step.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        J. H. Verner: Numerically optimal Runge-Kutta pairs with interpolants (2010).
    """

    table = VERN7


class Dopri8(_Named):
    """Dormand and Prince's method of order 8 as in Hairer's DOP853: adaptive, twelve evaluations a step.

    Its error is measured by two estimates, of orders 5 and 3, together. The dense output has order 7; a step that holds
    an output takes three more evaluations. Where samples have steps of their own, that is one that holds an output of
    any sample; inside `torch.compile`, and with `save="dense"`, it is every step.

    Args:
        trainable: As in `ExplicitRungeKutta`.

    References:
        - P. J. Prince, J. R. Dormand: High order embedded Runge-Kutta formulae (1981).
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., sections II.5, II.6 and II.10.
    """

    table = DOPRI8
