"""What users may call by a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from dyn_numerics.arguments import kind_of

__all__ = ["by_name"]

T = TypeVar("T")


def by_name(argument: str, value: Any, named: Mapping[str, Callable[[], T]], kind: type[Any], expected: str) -> T:
    """Returns what a name stands for, or what was given instead of a name.

    Args:
        argument: The argument's name, for messages.
        value: A name, or one of its own kind.
        named: What the names mean.
        kind: The class of what is returned.
        expected: What the argument may be, for messages.

    Raises:
        ValueError: If there is no such name; the message lists them and suggests the nearest.
        TypeError: If it is neither a name nor of the kind.

    Example:
        >>> from dyn_numerics import Euler, Stepper
        >>> from dyn_numerics.by_name import by_name
        >>> by_name("solver", "oiler", {"euler": Euler}, Stepper, "a name or a Stepper")
        Traceback (most recent call last):
        ValueError: solver: got 'oiler', expected one of euler; did you mean 'euler'?
    """
    if isinstance(value, kind):
        given: T = value
        return given
    if not isinstance(value, str):
        hint = f"; try {value.__name__}()" if isinstance(value, type) and issubclass(value, kind) else ""
        raise TypeError(f"{argument}: got {kind_of(value)}, expected {expected}{hint}")
    if value not in named:
        near = get_close_matches(value.lower(), named, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{argument}: got {value!r}, expected one of {', '.join(named)}{hint}")
    return named[value]()
