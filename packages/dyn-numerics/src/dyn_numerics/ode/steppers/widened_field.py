"""A field of states in half precision, for a method that combines these in float32."""

from __future__ import annotations

import torch

from dyn_numerics.dtypes import real_dtype, wide_dtype
from dyn_numerics.ode.stepper import FlatField

__all__ = ["widened"]


def widened(f: FlatField, dtype: torch.dtype) -> FlatField:
    """The field for states in the dtype in which they are combined; itself, if that is theirs.

    Args:
        f: Vector field on flat states.
        dtype: Dtype of its states.
    """
    time, wide = real_dtype(dtype), wide_dtype(dtype)
    return f if wide is dtype else lambda t, x: f(t.to(time), x.to(dtype)).to(wide)
