"""Where values lie among sorted ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["count_below"]


def count_below(ascending: Tensor, values: Tensor, including: bool) -> Tensor:
    """How many of some ascending numbers lie below each value.

    Args:
        ascending: Numbers, `[*lead, n]`, in ascending order.
        values: Values, `[*lead, m]`.
        including: Whether numbers that equal the value count.

    Returns:
        `[*lead, m]`, int64.
    """
    if not torch.compiler.is_compiling():
        return torch.searchsorted(ascending.contiguous(), values.contiguous(), right=including)
    # By halves, which fuses; torch 2.13 compiles searchsorted to wrong values where inputs are views in another order.
    n = ascending.shape[-1]
    count = torch.zeros_like(values, dtype=torch.int64)
    width = 1 << (n.bit_length() - 1)
    while width:
        more = count + width
        pivot = ascending.gather(-1, more.clamp(max=n) - 1)
        below = pivot <= values if including else pivot < values
        count = torch.where(below & (more <= n), more, count)
        width //= 2
    return count
