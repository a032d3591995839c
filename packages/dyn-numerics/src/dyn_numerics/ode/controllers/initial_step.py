"""The first step size."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from torch import Tensor

from dyn_numerics.ode.scalar import Scalar, clip, either, maximum, minimum, over_state, power, where
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.ode.times import state_time

__all__ = ["initial_step"]

SMALLEST_SLOPE = 1e-300  # keeps quotients finite
TIME_ROUNDING = 1e-15  # a few spacings of float64, so that the step advances a time of 1e12


def initial_step(
    f: FlatField,
    t0: Scalar,
    t1: Scalar,
    x0: Tensor,
    f0: Tensor,
    error_order: int,
    scaled_norm: Callable[[Tensor], Scalar],
    longest: float = inf,
) -> Scalar:
    """Estimates a first step from the scales of state, slope and curvature; evaluates `f` once, within the span.

    Args:
        f: Vector field on flat states.
        t0: Start time, a host number or `[*lead]`.
        t1: End of the solve.
        x0: Start state, `[*lead, N]`.
        f0: Field at the start, `[*lead, N]`.
        error_order: Order of the error estimate.
        scaled_norm: Norm of a vector `[*lead, N]` in units of the tolerance at `x0`.
        longest: Greatest step.

    Returns:
        The magnitude of the first step, at most that of the span, and enough to advance the time.

    References:
        Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section II.4, "Starting step size".
    """
    length = minimum(maximum(t1 - t0, t0 - t1), longest)
    d0 = scaled_norm(x0)
    d1: Scalar = scaled_norm(f0)
    flat = either(d0 < 1e-5, d1 < 1e-5)
    balanced = where(d1 < inf, 0.01 * d0 / clip(d1, low=SMALLEST_SLOPE), 1e-6 * length)
    h0 = minimum(where(flat, minimum(1e-6, length), balanced), length)
    step = where(t1 > t0, h0, -h0)
    t = where(h0 < maximum(t1 - t0, t0 - t1), t0 + step, t1)
    second = f(state_time(t, x0), x0 + over_state(step, x0) * f0)
    d2: Scalar = scaled_norm(second - f0) / clip(h0, low=SMALLEST_SLOPE)
    steepest: Scalar = maximum(d1, d2)
    h1 = where(
        steepest <= 1e-15,
        maximum(1e-6, 1e-3 * h0),
        power(0.01 / clip(steepest, low=SMALLEST_SLOPE), 1 / (error_order + 1)),
    )
    chosen = where(steepest < inf, minimum(100 * h0, h1), h0)
    return minimum(maximum(chosen, TIME_ROUNDING * maximum(t0, -t0)), length)
