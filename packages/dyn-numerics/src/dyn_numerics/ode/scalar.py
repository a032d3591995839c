"""Arithmetic that reads the same on host numbers and on tensors.

The loop is written once with these. Joint stepping in a Python loop calls it with host numbers, which costs nothing and
waits for no device; a loop that selects calls it with tensors, one element for each problem.
"""

from __future__ import annotations

from math import inf
from typing import Any, TypeVar

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype

__all__ = [
    "Flag",
    "Scalar",
    "both",
    "clip",
    "either",
    "magnitude",
    "maximum",
    "minimum",
    "negate",
    "over_state",
    "power",
    "where",
]

Scalar = float | Tensor
"""A host number, or a real tensor that holds one for each problem."""

Flag = bool | Tensor
"""A host truth value, or a boolean tensor that holds one for each problem."""

T = TypeVar("T")


def clip(x: Scalar, low: float = -inf, high: float = inf) -> Scalar:
    """The value in `[low, high]` that is nearest to `x`."""
    if isinstance(x, Tensor):
        return x.clamp(None if low == -inf else low, None if high == inf else high)
    return min(max(x, low), high)


def magnitude(x: Scalar) -> Scalar:
    """The absolute value."""
    return x.abs() if isinstance(x, Tensor) else abs(x)


def maximum(x: Scalar, y: Scalar) -> Scalar:
    """The larger of two values."""
    if isinstance(x, Tensor):
        return torch.maximum(x, y) if isinstance(y, Tensor) else x.clamp(min=y)
    return y.clamp(min=x) if isinstance(y, Tensor) else max(x, y)


def minimum(x: Scalar, y: Scalar) -> Scalar:
    """The smaller of two values."""
    if isinstance(x, Tensor):
        return torch.minimum(x, y) if isinstance(y, Tensor) else x.clamp(max=y)
    return y.clamp(max=x) if isinstance(y, Tensor) else min(x, y)


def power(x: Scalar, exponent: Scalar) -> Scalar:
    """`x^exponent` of a positive value; on tensors no element's rounding depends on where it lies among the others."""
    return torch.exp(exponent * torch.log(x)) if isinstance(x, Tensor) else x**exponent


def both(x: Flag, y: Flag) -> Flag:
    """Whether both hold."""
    return x & y


def either(x: Flag, y: Flag) -> Flag:
    """Whether one of them holds."""
    return x | y


def negate(x: Flag) -> Flag:
    """Whether it does not hold."""
    return ~x if isinstance(x, Tensor) else not x


def where(condition: Flag, x: T, y: T) -> T:
    """`x` where the condition holds, else `y`: values, states `[*lead, N]`, or tuples of such.

    Args:
        condition: A truth value, or a tensor `[*lead]`.
        x: What is taken where it holds.
        y: What is taken where it does not; of the same structure if the condition is a tensor.
    """
    if not isinstance(condition, Tensor):
        return x if condition else y
    return _select(condition, x, y)  # type: ignore[no-any-return]


def _select(condition: Tensor, x: Any, y: Any) -> Any:
    if isinstance(x, tuple) and isinstance(y, tuple) and len(x) == len(y):
        parts = [_select(condition, a, b) for a, b in zip(x, y, strict=True)]
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    if isinstance(x, tuple) or isinstance(y, tuple) or (x is None) != (y is None):
        raise TypeError(
            f"carry, retry, memory: got a {type(x).__name__} and a {type(y).__name__} to select among for each sample, "
            f"expected one structure from init on; try dyn_numerics.contracts on your stepper or controller"
        )
    if x is y:
        return x
    for value in (x, y):
        while isinstance(value, Tensor) and condition.dim() < value.dim():
            condition = condition.unsqueeze(-1)
    return torch.where(condition, x, y)


def over_state(x: Scalar, state: Tensor) -> Scalar:
    """A value for each problem, shaped and cast so that it meets states `[*lead, N]`; a host number stays one."""
    return x.to(real_dtype(state.dtype)).unsqueeze(-1) if isinstance(x, Tensor) else x
