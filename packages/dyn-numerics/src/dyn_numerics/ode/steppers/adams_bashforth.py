"""Adams and Bashforth's explicit multistep methods."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dyn_numerics.ode.interpolants.quadrature import quadrature
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.ode.steppers.explicit_methods import Bosh3, Heun, RungeKutta4
from dyn_numerics.ode.steppers.multistep import History, Multistep, moved
from dyn_numerics.ode.times import state_time

__all__ = ["AdamsBashforth"]


class AdamsBashforth(Multistep):
    """Adams and Bashforth's methods: fixed steps, order 1 to 4, one evaluation a step.

    A step integrates the polynomial through the last slopes, as many as the order, from its start to its end. The slopes may
    lie at any times, so that grids need not be uniform. The first steps, and those after a jump or after a step shorter than
    a tenth of theirs, are Heun's, Bogacki and Shampine's or the classical Runge-Kutta method's. Dense output is a cubic
    through the slopes at both ends, which keeps the order.

    The methods are zero-stable on every grid. Of `x' = lambda x` with `lambda < 0` they are stable for `lambda dt` above
    -2, -1, -6/11 and -3/10, by order. Eager solves per sample take one more host read a step, two while any sample starts; a
    compiled program evaluates both ways to step, in every step.

    Args:
        order: Order, 1 (Euler's method) to 4.

    Raises:
        ValueError: If there is no such order.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver="adams_bashforth", step_size=0.05)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        - F. Bashforth, J. C. Adams: An Attempt to Test the Theories of Capillary Action (1883).
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., sections III.1 and III.5.
    """

    starts = (None, Heun(), Bosh3(), RungeKutta4())

    def _advance(
        self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, history: History, nodes: Sequence[Scalar]
    ) -> tuple[Tensor, Tensor]:
        weights, _ = quadrature([0.0, *nodes])
        x1 = moved(x, t1 - t0, weights, (history.slope, *history.slopes)).to(x.dtype)
        return x1, f(state_time(t1, x), x1)
