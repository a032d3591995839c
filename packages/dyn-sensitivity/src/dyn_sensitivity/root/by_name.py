"""The names of the sensitivity algorithms for roots and fixed points, one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from dyn_numerics.arguments import kind_of
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
    if isinstance(sensitivity, RootSensitivity):
        return sensitivity
    if not isinstance(sensitivity, str):
        raise TypeError(
            f"sensitivity: got {kind_of(sensitivity)}, expected a name or a dyn_sensitivity.RootSensitivity"
        )
    if sensitivity not in ROOT_ALGORITHMS:
        near = get_close_matches(sensitivity.lower(), ROOT_ALGORITHMS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"sensitivity: got {sensitivity!r}, expected one of {', '.join(ROOT_ALGORITHMS)}{hint}")
    return ROOT_ALGORITHMS[sensitivity]()
