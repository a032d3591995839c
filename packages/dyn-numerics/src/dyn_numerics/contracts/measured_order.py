"""Orders of convergence as measured slopes."""

from __future__ import annotations

import math
from collections.abc import Callable

from dyn_numerics.contracts.expectation import expect

__all__ = ["margin", "measured_order"]

LARGEST_ERROR = 1e-3
SMALLEST_ERROR = 1e3 * 2.0**-52  # rounding is seen below it


def measured_order(error: Callable[[int], float], most_steps: int = 600) -> float:
    """Slope of an error over the step size, both in logarithms, fitted between 1e-3 and 1e3 eps.

    Args:
        error: The error as a function of the number of steps.
        most_steps: Greatest number of steps that is tried.

    Raises:
        AssertionError: If fewer than four errors lie between the bounds.

    Example:
        >>> round(measured_order(lambda steps: 0.3 * steps**-4), 6)
        4.0
    """
    points, tried = [], []
    steps = 4
    while steps <= most_steps:
        found = error(steps)
        tried.append(f"{found:.1e}")
        if found < SMALLEST_ERROR:
            break
        if found <= LARGEST_ERROR:
            points.append((-math.log(steps), math.log(found)))
        steps = math.ceil(1.5 * steps)
    expect(
        len(points) >= 4,
        f"order: only {len(points)} errors lie between {LARGEST_ERROR:.0e} and {SMALLEST_ERROR:.0e}, expected 4 to fit "
        f"a slope to; from 4 steps on, 1.5 times as many each time, they are {', '.join(tried)}. If they do not fall, "
        f"the method does not converge; if they fall too fast or too slowly, set another `length`",
    )
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    rise: float = sum((x - middle[0]) * (y - middle[1]) for x, y in points)
    run: float = sum((x - middle[0]) ** 2 for x, _ in points)
    return rise / run


def margin(order: int) -> float:
    """How far a measured slope may be from an order.

    Args:
        order: The order that is claimed.
    """
    return 0.2 if order <= 4 else 0.35
