"""Where a function of one variable changes its sign."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2, nan
from typing import Any

from dyn_numerics.ode.scalar import Flag, Scalar, both, magnitude, maximum, minimum, where
from dyn_numerics.transforms import any_lane

__all__ = ["first_crossing"]

LEAST_WIDTH = 2.0**-52  # of the step: as fine as its ends are known


def first_crossing(
    value: Callable[[Scalar], Scalar], sought: Flag, low: Scalar, before: Any, after: Scalar, high: Scalar = 1.0
) -> Scalar:
    """Finds a zero of a function that changes its sign between two positions, by the ITP method.

    It takes about ten evaluations where the function is smooth, and hardly more than bisection in any case. What is returned
    is on the far side of the zero, and one of the zeros if there are several.

    Args:
        value: The function, on positions of the kind of `low`.
        sought: Where a zero is sought at all: a truth value, or `[*lead]`.
        low: A position before the zero, in [0, 1).
        before: Sign of the function there, 1 or -1.
        after: The function at `high`, of the other sign or zero.
        high: A position behind the zero, at most 1.

    Returns:
        The positions; 1 where none is sought, and NaN where the function was.

    References:
        I. F. D. Oliveira, R. H. C. Takahashi: An enhancement of the bisection method average performance preserving minmax
        optimality, ACM Trans. Math. Softw. 47 (2021), article 5; with kappa_1 = 0.2, kappa_2 = 2, n_0 = 1.
    """
    most = ceil(log2(1 / LEAST_WIDTH)) + 1
    high = where(sought, high + 0 * low, 1.0 + 0 * low)
    low = where(sought, low, high)
    f_low, f_high = value(low) * before, after * before  # positive, and not
    high = where(both(sought, f_low <= 0), low, high)  # if it is not, the zero is where the step starts
    for i in range(most + 1):
        width = high - low
        open_ = both(sought, width > 2 * LEAST_WIDTH)
        if not any_lane(open_):
            break
        middle = low + width / 2
        drop = f_low - f_high
        secant = low + width * (f_low / where(drop > 0, drop, 1.0))
        secant = where(both(secant > low, secant < high), secant, middle)
        toward = where(secant <= middle, 1.0, -1.0)
        push = minimum(maximum(0.2 * width * width, LEAST_WIDTH), magnitude(middle - secant))
        slack = maximum(LEAST_WIDTH * 2.0 ** (most - i) - width / 2, 0.0)
        guess = secant + toward * push
        guess = where(magnitude(guess - middle) <= slack, guess, middle - toward * slack)
        f_guess = value(guess) * before
        is_before, is_after = both(open_, f_guess >= 0), both(open_, f_guess <= 0)
        lost = both(open_, f_guess != f_guess)
        low, f_low = where(is_before, guess, low), where(is_before, f_guess, f_low)
        high, f_high = where(lost, nan, where(is_after, guess, high)), where(is_after, f_guess, f_high)
    return high
