"""The reversible Heun method."""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.interpolants.quadratic import quadratic
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.times import state_time

__all__ = ["ReversibleHeun"]


class ReversibleHeun(Stepper):
    """The reversible Heun method: adaptive, order 2, one evaluation a step, with an exact inverse.

    Beside the state `x` it carries another, `z`, which starts as `x`, and at which it evaluates the field:

        z1 = 2 x0 - z0 + dt f(t0, z0),
        x1 = x0 + dt (f(t0, z0) + f(t1, z1)) / 2.

    The same formulas lead back from `t1` to `t0`: a step is undone but for rounding. The error is estimated by the difference
    to Euler's step. Dense output is the quadratic with both slopes, of order 2.

    Of `x' = lambda x` it is stable for `lambda dt` between -i and i on the imaginary axis, and nowhere else: where solutions
    decay, `x` and `z` part, the faster the longer the steps.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver="reversible_heun", rtol=1e-5)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        P. Kidger, J. Foster, X. Li, T. Lyons: Efficient and Accurate Gradients for Neural SDEs, NeurIPS 2021, section 3 and
        appendix D.
    """

    order = 2
    error_order = 1
    dense_degree = 2
    one_step = False

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, f(t, x) if slope is None else slope

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: tuple[Tensor, Tensor]) -> Step:
        start, beside, first = (value.to(wide_dtype(x.dtype)) for value in (x, *carry))
        dt = over_state(t1 - t0, start)
        ahead = (2 * start - beside + dt * first).to(x.dtype)
        slope = f(state_time(t1, x), ahead)
        last = slope.to(start.dtype)
        x1 = start + (0.5 * dt) * (first + last)
        return Step(x1.to(x.dtype), (0.5 * dt) * (last - first), (ahead, slope), carry, (carry[1], slope))

    def inverse_step(
        self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        back = self.step(f, t1, t0, x, carry)  # the method is symmetric
        return back.x, back.carry

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        start, first, last = (value.to(self.dense_dtype(x0)) for value in (x0, *step.stages))
        return quadratic(start, first, last, over_state(t1 - t0, start))
