"""The user's vector field as the numerics see it: on flat states, checked and counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.pytree_state import StateLayout

__all__ = ["CountedField", "check_signature"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_signature(f: Callable[..., Any], n_args: int) -> None:
    """Refuses a field that cannot be called as `f(t, x, *args)`.

    Args:
        f: The user's field.
        n_args: Number of extra arguments.

    Raises:
        TypeError: If `f` is not callable or its signature does not take them.
    """
    if not callable(f):
        raise TypeError(f"f: got a {type(f).__name__}, expected a function or module f(t, x, *args)")
    if isinstance(f, type):
        raise TypeError(
            f"f: got the class {f.__name__}, expected a function or module; try an instance, {f.__name__}(...)"
        )
    try:
        signature = inspect.signature(f.forward if isinstance(f, nn.Module) else f)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    if not _binds(signature, 2 + n_args):
        extra = f" with {n_args} args" if n_args else ""
        required = sum(p.default is p.empty and p.kind in POSITIONAL for p in signature.parameters.values())
        hint = "; pass the rest as args=(...)" if required > 2 + n_args else ""
        if _binds(signature, 1):
            hint = (
                "; for a field of the state alone, such as nn.Sequential, try lambda t, x: f(x) or dyn_models.NeuralODE"
            )
        raise TypeError(
            f"f: got a field with the signature {signature}, expected one that takes (t, x, *args){extra}{hint}"
        )


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


class CountedField:
    """A field `f(t, x, *args)` as a function of flat states, under the autocast of whoever makes this.

    Args:
        f: The user's field.
        args: Its extra arguments.
        layout: Layout of the state.

    Attributes:
        n_evals: Number of calls so far.
    """

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], layout: StateLayout) -> None:
        self._f, self._args, self._layout = f, tuple(args), layout
        self.n_evals = 0
        mixed = torch.is_autocast_enabled(layout.device.type)
        self._autocast: Callable[[], AbstractContextManager[object]] = (
            autocast_of_caller(layout.device.type) if mixed else nullcontext
        )
        self._before: tuple[Tensor, int] | None = None  # the last slope, and how often it had been written to

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the field.

        Raises:
            TypeError: If it returns another structure or dtype than the state's.
            ValueError: If it returns another shape or device, or writes into the state or into what it returned before.
        """
        self.n_evals += 1
        writes = _writes(x)
        with self._autocast():
            slope = self._f(t, self._layout.unflatten(x), *self._args)
        if _writes(x) != writes:
            raise ValueError("f: changed the state x in place, expected it to be left alone; try x = x.clone() first")
        if self._before is not None and _writes(self._before[0]) != self._before[1]:
            raise ValueError(
                "f: wrote into the tensor that it returned before, expected a new one from every call; "
                "return a copy, as in out.clone()"
            )
        self._layout.check("f", slope)
        flat = self._layout.flatten(slope)
        self._before = flat, _writes(flat)
        return flat


def _writes(x: Tensor) -> int:
    """How often a tensor or a view of it has been written to; inference tensors do not count."""
    return 0 if x.is_inference() else x._version
