"""Checks of arguments that several handlers take: bad input is refused at once, by name, with what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from dyn_numerics.per_sample import PerSample
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_vmap

__all__ = [
    "check_initial_state",
    "check_sampled_arguments",
    "constant",
    "extra_arguments",
    "kind_of",
    "positive",
    "positive_integer",
]


def check_initial_state(x0: Any, batched: bool = False, name: str = "x0") -> StateLayout:
    """Returns the layout of a finite initial state.

    Args:
        x0: Initial state.
        batched: Whether its leaves lead with a batch of samples, each of which is a problem of its own.
        name: The argument's name, for the message.

    Raises:
        TypeError: If it is not a pytree of floating or complex tensors.
        ValueError: If it has no leaf, leaves on several devices, or values that are not finite; or if it has no batch.
    """
    layout = StateLayout(x0, name, batched)
    if torch.compiler.is_compiling() or under_vmap():
        return layout  # its values cannot be read
    if not all(bool(torch.isfinite(leaf.detach()).all()) for leaf in tree_leaves(x0)):
        raise ValueError(f"{name}: got values that are NaN or infinite, expected finite ones")
    return layout


def extra_arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the field's further arguments as a tuple.

    Raises:
        TypeError: If they are not a sequence, or a tensor, which would come apart along its first dimension.
    """
    if isinstance(args, (Tensor, str, Mapping)) or not isinstance(args, Iterable):
        raise TypeError(f"args: got a {type(args).__name__}, expected a tuple of arguments; try args=(...,)")
    return tuple(tree_map(constant, arg) for arg in args) if torch.compiler.is_compiling() else tuple(args)


def check_sampled_arguments(args: Sequence[Any], layout: StateLayout) -> None:
    """Refuses arguments that belong to the samples of another batch, or of none.

    Raises:
        ValueError: If one does not lead with the state's batch.
    """
    for arg in tree_leaves(args):
        for leaf in tree_leaves(arg.values) if isinstance(arg, PerSample) else ():
            if leaf.shape[:1] != layout.lead:
                batch = f"the state's batch {layout.lead[0]}" if layout.lead else "stepping='per_sample'"
                raise ValueError(f"args: got a PerSample of shape {list(leaf.shape)}, expected {batch}")


def kind_of(value: object) -> str:
    """What a value is, for messages: a class itself has been taken for one of its instances.

    Args:
        value: What came.
    """
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def positive(name: str, number: float, expected: str) -> float:
    """Returns a number that is positive and finite.

    Args:
        name: The argument's name, for the message.
        number: The number.
        expected: What it is expected to be, for the message.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{name}: got a {type(number).__name__}, expected {expected}")
    value: float = constant(float(number))
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{name}: got {number}, expected {expected}")
    return value


def positive_integer(name: str, number: int, expected: str = "a positive integer") -> int:
    """Returns an integer that is positive.

    Args:
        name: The argument's name, for the message.
        number: The integer.
        expected: What it is expected to be, for the message.

    Raises:
        ValueError: If it is not a positive integer.
    """
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name}: got {number!r}, expected {expected}")
    return int(number)


def constant(number: Any) -> Any:
    """A number that torch.compile takes for a constant; compiled loops take no others, and it compiles again for others."""
    # It has to know the value of whatever it puts into a set.
    return next(iter({number})) if torch.compiler.is_compiling() and isinstance(number, float) else number
