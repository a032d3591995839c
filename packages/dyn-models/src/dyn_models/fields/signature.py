"""Whether a vector field wants to know the time, read from its signature once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["takes_time"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_time(vector_field: Callable[..., Any], name: str = "vector_field") -> bool:
    """Tells `f(t, x, *args)` from `f(x)`, which any `nn.Sequential` is.

    A field that requires one positional argument is `f(x)`, unless that argument is called `t`; one that requires two
    or more, or takes any number, is `f(t, x, *args)`.

    Args:
        vector_field: The field.
        name: What it is called in messages.

    Raises:
        TypeError: If it is not callable, or takes no positional argument.

    Example:
        >>> import torch
        >>> takes_time(torch.nn.Linear(2, 2)), takes_time(lambda t, x: -x)
        (False, True)
    """
    if not callable(vector_field):
        got = type(vector_field).__name__
        raise TypeError(f"{name}: got a {got}, expected a function or module f(t, x, *args) or f(x)")
    try:
        signature = inspect.signature(_plain(vector_field))
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in POSITIONAL]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty]
    any_number = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    if keywords or not (positional or any_number):
        raise TypeError(f"{name}: got the signature {signature}, expected one that takes (t, x, *args) or (x)")
    if any_number or len(required) >= 2:
        return True
    return len(positional) >= 2 and positional[0].name == "t"


def _plain(vector_field: Callable[..., Any]) -> Callable[..., Any]:
    """What carries the signature: a module's own `__call__` takes anything."""
    if isinstance(vector_field, functools.partial):
        return functools.partial(_plain(vector_field.func), *vector_field.args, **vector_field.keywords)
    return vector_field.forward if isinstance(vector_field, nn.Module) else vector_field
