"""Python numbers that a field refers to, inside of torch.compile: constants of the program.

The compiler makes a variable of a float that has changed between two calls, and torch 2.13 then fails to trace a loop that
uses it. A new program for every value is what users are told about numbers anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["with_constant_numbers"]

T = TypeVar("T")

_users_choice: list[bool] = []


def with_constant_numbers(trace: Callable[[], T]) -> T:
    """Has something traced with numbers as constants.

    Args:
        trace: What is called inside of torch.compile.
    """
    _make_constants(True)
    found = trace()
    _make_constants(False)
    return found


def _make_constants(begin: bool) -> None:
    """Sets the compiler's option, or sets it back. The compiler calls this while it traces and does not look inside."""
    config: Any = sys.modules["torch._dynamo.config"]  # loaded by then; to import it above would take a second
    if not _users_choice:
        _users_choice.append(config.specialize_float)
    config.specialize_float = True if begin else _users_choice[0]


# What torch.compiler.assume_constant_result sets, which would load the compiler here.
_make_constants._dynamo_marked_constant = True  # type: ignore[attr-defined]
