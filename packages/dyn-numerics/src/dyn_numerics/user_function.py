"""A function of the user's of a state, mostly of time as well, as the numerics call it: on flat states."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.per_sample import bare_arguments, take_samples
from dyn_numerics.pytree_state import StateLayout

__all__ = ["UserFunction", "check_signature"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_signature(
    function: Callable[..., Any], n_args: int, name: str = "f", kind: str = "field", takes: str = "t, x"
) -> None:
    """Refuses a function that cannot be called as `f(t, x, *args)`, or with other arguments than `t, x`.

    Args:
        function: The user's function.
        n_args: Number of extra arguments.
        name: The argument's name, for the message.
        kind: What it is, for the message.
        takes: Names of the arguments before the extra ones.

    Raises:
        TypeError: If it is not callable or its signature does not take them.
    """
    if not callable(function):
        raise TypeError(f"{name}: got a {type(function).__name__}, expected a function or module f({takes}, *args)")
    if isinstance(function, type):
        raise TypeError(
            f"{name}: got the class {function.__name__}, expected a function or module; "
            f"try an instance, {function.__name__}(...)"
        )
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    count = n_args + len(takes.split(", "))
    if not _binds(signature, count):
        extra = f" with {n_args} args" if n_args else ""
        required = sum(p.default is p.empty and p.kind in POSITIONAL for p in signature.parameters.values())
        hint = "; pass the rest as args=(...)" if required > count else ""
        if count == n_args + 2 and _binds(signature, 1):
            hint = f"; for a {kind} of the state alone try lambda {takes}: {name}({takes[3:]})"
            if kind == "field":
                hint = "; for a field of the state alone, such as nn.Sequential, try lambda t, x: f(x) or dyn_models.NeuralODE"
        raise TypeError(
            f"{name}: got a {kind} with the signature {signature}, expected one that takes ({takes}, *args){extra}{hint}"
        )


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


class UserFunction:
    """A function `f(t, x, *args)`, or `f(x, *args)`, on flat states, under the autocast of whoever makes this.

    Args:
        f: The user's function.
        args: Its extra arguments.
        layout: Layout of the state.
        name: What it is called in messages.

    Attributes:
        symbol: What its state is called in messages.
    """

    symbol = "x"

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], layout: StateLayout, name: str = "f") -> None:
        self._f, self._args, self._layout, self._name = f, tuple(args), layout, name
        # A compiler would have to trace the counts of writes, and in inference mode there are none.
        self._counts = not (torch.compiler.is_compiling() or torch.is_inference_mode_enabled())
        self._bare = bare_arguments(args)
        mixed = torch.is_autocast_enabled(layout.device.type)
        self._autocast: Callable[[], AbstractContextManager[object]] | None = (
            autocast_of_caller(layout.device.type) if mixed else None
        )
        self._shape = layout.shapes[0] if layout.is_single_tensor else None
        self._watches = not torch.compiler.is_compiling()
        self._before: Tensor | None = None  # the last value
        self._writes = 0  # how often it had been written to

    def take(self, samples: Tensor | None) -> Self:
        """The function of some of the samples, whose indices are `[m]`; with None that of all, for another solve."""
        return self.with_arguments(self._args if samples is None else take_samples(self._args, samples))

    def with_arguments(self, args: Sequence[Any]) -> Self:
        """The function with other extra arguments, under the same autocast."""
        twin = type(self)(self._f, args, self._layout, self._name)
        twin._autocast = self._autocast
        return twin

    @property
    def args(self) -> tuple[Any, ...]:
        """The extra arguments as the function receives them."""
        return self._bare

    def value(self, t: Tensor | None, x: Tensor, is_copy: bool = False) -> Any:
        """What the function returns.

        Args:
            t: Time, `[*lead]`; None for a function of the state alone.
            x: State, `[*lead, N]`.
            is_copy: Whether the state may be written into.

        Raises:
            ValueError: If it writes into what it may not.
        """
        shape = self._shape
        given = (x,) if t is None else (t, x)
        writes = [value._version for value in given] if self._counts and not (is_copy or x.is_inference()) else None
        if shape is None:
            state = self._layout.unflatten(x)
        else:
            state = x if len(shape) == 1 else x.reshape((*x.shape[:-1], *shape))  # a plain tuple is faster
        at = () if t is None else (self._layout.spread(t),)
        if self._autocast is None:
            found = self._f(*at, state, *self._bare)
        else:
            with self._autocast():
                found = self._f(*at, state, *self._bare)
        if writes is not None and writes != [value._version for value in given]:
            kind, symbol = ("state", self.symbol) if x._version != writes[-1] else ("time", "t")
            raise ValueError(
                f"{self._name}: changed the {kind} {symbol} in place, expected it to be left alone; "
                f"try {symbol} = {symbol}.clone() first"
            )
        return found

    def _refuse_overwritten(self, flat: Tensor) -> None:
        """Refuses a function that writes into its last value; or, where nobody counts writes, that returns it again."""
        if not self._watches or (is_functorch_wrapped_tensor(flat) and not self._counts):
            return  # what a transform wraps has no address
        before = self._before
        if before is None or not before.numel():
            overwritten = False
        elif self._counts:
            overwritten = before._version != self._writes
        else:
            overwritten = before.data_ptr() == flat.data_ptr()
        if overwritten:
            done = "wrote into the tensor that it returned before" if self._counts else "returned the same memory twice"
            raise ValueError(
                f"{self._name}: {done}, expected a new tensor from every call; return a copy, as in out.clone()"
            )
        if self._counts:
            self._before, self._writes = (None, 0) if flat.is_inference() else (flat, flat._version)
        else:
            self._before = flat
