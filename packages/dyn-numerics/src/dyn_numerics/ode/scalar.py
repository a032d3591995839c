"""Arithmetic that reads the same on host numbers and on tensors.

Step-size control is written once with these. Joint stepping in a Python loop calls it with host numbers, which costs
nothing and waits for no device; a loop that selects calls it with tensors.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

__all__ = ["Scalar", "clip", "maximum", "minimum", "where"]

Scalar = float | Tensor
"""A host number, or a real tensor that holds one for each problem."""


def clip(x: Scalar, low: float = -inf, high: float = inf) -> Scalar:
    """The value in `[low, high]` that is nearest to `x`."""
    if isinstance(x, Tensor):
        return x.clamp(low, high)
    return min(max(x, low), high)


def maximum(x: Scalar, y: Scalar) -> Scalar:
    """The larger of two values."""
    return -minimum(-x, -y)


def minimum(x: Scalar, y: Scalar) -> Scalar:
    """The smaller of two values."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return torch.minimum(torch.as_tensor(x), torch.as_tensor(y))
    return min(x, y)


def where(condition: bool | Tensor, x: Scalar, y: Scalar) -> Scalar:
    """`x` where the condition holds, else `y`."""
    if isinstance(condition, Tensor):
        return torch.where(condition, x, y)
    chosen: Scalar = x if condition else y
    return chosen
