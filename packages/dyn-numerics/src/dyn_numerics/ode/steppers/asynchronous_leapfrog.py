"""The asynchronous leapfrog method."""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.arguments import positive
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.interpolants.quadratic import quadratic
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.times import state_time

__all__ = ["AsynchronousLeapfrog"]


class AsynchronousLeapfrog(Stepper):
    """The asynchronous leapfrog method, as in MALI: adaptive, order 2, one evaluation a step, with an exact inverse.

    Beside the state `x` it carries a velocity `v`, which starts as the slope. The field is evaluated in the middle of the step:

        u = f(t0 + dt / 2, x0 + dt v0 / 2),
        v1 = v0 + 2 eta (u - v0),
        x1 = x0 + dt (v0 + v1) / 2.

    The same formulas with `eta / (2 eta - 1)` lead back from `t1` to `t0`: a step is undone but for rounding. The error is
    estimated by the difference to the step with `v0` alone, `dt (v1 - v0) / 2`. Dense output is the quadratic with both
    velocities.

    Of `x' = lambda x` it is stable for `lambda dt` between -i and i on the imaginary axis, and nowhere else. Damping,
    `eta < 1`, makes it stable where solutions decay slowly too, but lowers the order to 1, and the inverse
    magnifies errors by `1 / (2 eta - 1)` a step.

    Args:
        eta: Damping, in (1/2, 1]; 1 is none.

    Attributes:
        order: 2 without damping, 1 with it.

    Raises:
        TypeError: If `eta` is not a number.
        ValueError: If `eta` is not in (1/2, 1].

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver="alf", rtol=1e-5)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        - U. Mutze: An asynchronous leapfrog method II (2013), arXiv:1311.6602.
        - J. Zhuang, N. C. Dvornek, S. Tatikonda, J. S. Duncan: MALI: A memory efficient and reverse accurate integrator for
          Neural ODEs, ICLR 2021, algorithms 2 and 3 and appendix A.
    """

    error_order = 1
    dense_degree = 2
    one_step = False

    def __init__(self, eta: float = 1.0) -> None:
        super().__init__()
        expected = "a number in (1/2, 1]; try 1.0, no damping"
        self.eta = positive("eta", eta, expected)
        if not 0.5 < self.eta <= 1:
            raise ValueError(f"eta: got {eta}, expected {expected}")
        self.order = 2 if self.eta == 1 else 1

    def extra_repr(self) -> str:
        return f"eta={self.eta:g}"

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Tensor:
        return (f(t, x) if slope is None else slope).to(wide_dtype(x.dtype))

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> Step:
        x1, velocity = _moved(f, t0, t1, x, carry, self.eta)
        dt = over_state(t1 - t0, carry)
        return Step(x1, (0.5 * dt) * (velocity - carry), velocity, carry, (carry, velocity))

    def inverse_step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        return _moved(f, t1, t0, x, carry, self.eta / (2 * self.eta - 1))

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        (first, last), start = step.stages, x0.to(self.dense_dtype(x0))
        return quadratic(start, first, last, over_state(t1 - t0, start))


def _moved(f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, velocity: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """State and velocity at `t1` from those at `t0`."""
    half = over_state(0.5 * (t1 - t0), velocity)
    middle = x.to(velocity.dtype) + half * velocity
    slope = f(state_time(0.5 * t0 + 0.5 * t1, x), middle.to(x.dtype)).to(velocity.dtype)
    after = (2 * eta) * slope + (1 - 2 * eta) * velocity
    return (middle + half * after).to(x.dtype), after
