"""The user's vector field as the numerics see it: on flat states, checked and counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from dyn_numerics.pytree_state import StateLayout

__all__ = ["CountedField", "check_signature"]


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
    try:
        signature = inspect.signature(f.forward if isinstance(f, nn.Module) else f)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    try:
        signature.bind(*[None] * (2 + n_args))
    except TypeError:
        extra = f" with {n_args} args" if n_args else ""
        raise TypeError(
            f"f: got a field with the signature {signature}, expected one that takes (t, x, *args){extra}; "
            f"for a field of the state alone, such as nn.Sequential, try lambda t, x: f(x) or dyn_models.NeuralODE"
        ) from None


class CountedField:
    """A field `f(t, x, *args)` as a function of flat states.

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

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the field.

        Raises:
            TypeError: If it returns another structure or dtype than the state's.
            ValueError: If it returns another shape or device.
        """
        self.n_evals += 1
        slope = self._f(t, self._layout.unflatten(x), *self._args)
        self._layout.check("f", slope)
        return self._layout.flatten(slope)
