"""Adams and Moulton's multistep methods, as predictor and corrector."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dyn_numerics.ode.interpolants.quadrature import quadrature
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.ode.steppers.explicit_methods import Bosh3, Dopri5
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.steppers.multistep import History, Multistep, moved
from dyn_numerics.ode.tableaus.explicit import RK4_PAIR
from dyn_numerics.ode.times import state_time

__all__ = ["AdamsMoulton"]


class AdamsMoulton(Multistep):
    """Adams and Moulton's methods: adaptive, order 1 to 4, two evaluations a step.

    Adams and Bashforth's method of the same order predicts the new state, whose slope then takes the place of the oldest
    (PECE: predict, evaluate, correct once, evaluate). What the two differ by, times the ratio of their defects, is the error of
    the corrected state; that is Milne's device, with the defects on the grid as it is. The coefficients follow the step sizes.
    The first steps, and those after a jump or after a step shorter than a tenth of theirs, are a Runge-Kutta pair's, whose error
    estimate is brought to the same size. Dense output is a cubic through the slopes at both ends, which keeps the order.

    The methods are zero-stable on every grid. Of `x' = lambda x` with `lambda < 0` they are stable for `lambda dt` above -1, -2,
    -1.73 and -1.28, by order, less than the implicit methods that they approximate. Where `f` is cheap, a Runge-Kutta
    method is faster. Eager solves per sample take one more host read a step, two while any sample starts; a compiled
    program evaluates both ways to step, in every step.

    Args:
        order: Order, 1 (the implicit Euler method, corrected once) to 4.

    Raises:
        ValueError: If there is no such order.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver="adams_moulton", rtol=1e-5)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        - F. R. Moulton: New Methods in Exterior Ballistics (1926).
        - W. E. Milne: Numerical integration of ordinary differential equations, Amer. Math. Monthly 33 (1926), 455-460.
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., sections III.1 and III.5.
    """

    starts = (None, Bosh3(), ExplicitRungeKutta(RK4_PAIR), Dopri5())
    first_errors = (1.0, 4.0, 3.0, 33.0)  # of x' = lambda x the estimates then are Milne's

    def __init__(self, order: int = 4) -> None:
        super().__init__(order)
        self.error_order = self.order

    def _advance(
        self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, history: History, nodes: Sequence[Scalar]
    ) -> tuple[Tensor, Tensor, Tensor]:
        dt, t, before = t1 - t0, state_time(t1, x), (history.slope, *history.slopes)
        weights, of_predictor = quadrature([0.0, *nodes])
        predicted = moved(x, dt, weights, before)
        ahead = f(t, predicted.to(x.dtype))
        weights, defect = quadrature([1.0, 0.0, *nodes][: self.order])
        corrected = moved(x, dt, weights, (ahead, *before))
        error = over_state(defect / (of_predictor - defect), corrected) * (corrected - predicted)
        x1 = corrected.to(x.dtype)
        return x1, f(t, x1), error
