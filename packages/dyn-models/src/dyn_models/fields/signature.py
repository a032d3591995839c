"""Whether a vector field wants to know the time, read from its signature once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["takes_time"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
WRAPPED = ("_orig_mod", "module")  # where torch.compile, and DataParallel, DDP and AveragedModel keep what they wrap


def takes_time(vector_field: Callable[..., Any], name: str = "vector_field") -> bool:
    """Tells `f(t, x, *args)` from `f(x)`, which any `nn.Sequential` is.

    A field that requires one positional argument is `f(x)`, unless `t` comes before another; one that requires two or
    more, or takes any number, is `f(t, x, *args)`. What wraps a module (`torch.compile`, `DataParallel`, DDP,
    `AveragedModel`) is read as what it wraps.

    Args:
        vector_field: The field.
        name: What it is called in messages.

    Raises:
        TypeError: If it is not callable, takes no positional argument, has no signature that can be read, or has one
            that puts the state before the time.

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
    except (TypeError, ValueError):  # a builtin
        raise TypeError(
            f"{name}: got {vector_field!r}, whose signature cannot be read; wrap it, as in lambda t, x: torch.tanh(x)"
        ) from None
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in POSITIONAL]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty]
    any_number = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    if keywords or not (positional or any_number):
        raise TypeError(f"{name}: got the signature {signature}, expected one that takes (t, x, *args) or (x)")
    several = any_number or len(required) >= 2
    names = [p.name for p in positional]
    if "t" in names[1:] or (names == ["t"] and not several) or (names[:1] == ["x"] and several):
        raise TypeError(
            f"{name}: got the signature {signature}, expected the time first, (t, x, *args), or the state alone, (x); "
            f"wrap it, as in lambda t, x: f(x, t)"
        )
    return several or (len(names) >= 2 and names[0] == "t")


def _plain(vector_field: Callable[..., Any]) -> Callable[..., Any]:
    """What carries the signature: a module's own `__call__` takes anything, and so does `forward` of a wrapper."""
    if isinstance(vector_field, functools.partial):
        return functools.partial(_plain(vector_field.func), *vector_field.args, **vector_field.keywords)
    if not isinstance(vector_field, nn.Module):
        return vector_field
    if all(p.kind in ANY for p in inspect.signature(vector_field.forward).parameters.values()):
        for name in WRAPPED:
            if isinstance(inner := getattr(vector_field, name, None), nn.Module):
                return _plain(inner)
    return vector_field.forward
