"""The names of the methods for roots and fixed points, one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dyn_numerics.by_name import by_name
from dyn_numerics.root.anderson import Anderson
from dyn_numerics.root.bisection import Bisection
from dyn_numerics.root.broyden import Broyden
from dyn_numerics.root.chord import Chord
from dyn_numerics.root.fixed_point_iteration import FixedPointIteration
from dyn_numerics.root.levenberg_marquardt import LevenbergMarquardt
from dyn_numerics.root.newton import Newton
from dyn_numerics.root.newton_krylov import NewtonKrylov
from dyn_numerics.root.root_stepper import RootStepper

__all__ = ["FIXED_POINT_STEPPERS", "ROOT_STEPPERS", "root_stepper"]

ROOT_STEPPERS: Mapping[str, Callable[[], RootStepper]] = {
    "newton": Newton,
    "chord": Chord,
    "newton_krylov": NewtonKrylov,
    "broyden": Broyden,
    "anderson": Anderson,
    "fixed_point": FixedPointIteration,
    "bisection": Bisection,
    "levenberg_marquardt": LevenbergMarquardt,
}
"""What `solver=` of `root_find` may be called, and what makes it."""

FIXED_POINT_STEPPERS: Mapping[str, Callable[[], RootStepper]] = {
    **ROOT_STEPPERS,
    "broyden": lambda: Broyden(update="bad", jacobian=-1.0),
}
"""The same for `fixed_point`: the Jacobian of a residual `h(z) - z` is near -1 where there is a contraction."""


def root_stepper(solver: str | RootStepper, named: Mapping[str, Callable[[], RootStepper]]) -> RootStepper:
    """Returns the method of that name, or the stepper itself.

    Args:
        solver: A name, or a stepper.
        named: What the names mean.

    Raises:
        ValueError: If there is no such name; the message lists them and suggests the nearest.
        TypeError: If it is neither a name nor a stepper.
    """
    return by_name("solver", solver, named, RootStepper, "a name or a dyn_numerics.RootStepper")
