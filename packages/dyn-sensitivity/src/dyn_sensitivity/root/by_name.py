"""The names of the sensitivity algorithms for roots and fixed points, one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dyn_numerics.by_name import by_name
from dyn_sensitivity.root.implicit_differentiation import ImplicitDifferentiation
from dyn_sensitivity.root.jacobian_free import JacobianFree
from dyn_sensitivity.root.phantom import Phantom
from dyn_sensitivity.root.root_sensitivity import RootSensitivity
from dyn_sensitivity.root.shine import Shine
from dyn_sensitivity.root.unrolled import Unrolled

__all__ = ["ROOT_ALGORITHMS", "root_algorithm"]

ROOT_ALGORITHMS: Mapping[str, Callable[[], RootSensitivity]] = {
    "implicit": ImplicitDifferentiation,
    "unrolled": Unrolled,
    "phantom": Phantom,
    "jacobian_free": JacobianFree,
    "shine": Shine,
}
"""What `sensitivity=` of `root_find` and `fixed_point` may be called, and what makes it."""


def root_algorithm(sensitivity: str | RootSensitivity) -> RootSensitivity:
    """Returns the sensitivity algorithm of that name, or the algorithm itself.

    Raises:
        ValueError: If there is no such name; the message lists them and suggests the nearest.
        TypeError: If it is neither a name nor an algorithm.
    """
    return by_name(
        "sensitivity", sensitivity, ROOT_ALGORITHMS, RootSensitivity, "a name or a dyn_sensitivity.RootSensitivity"
    )
