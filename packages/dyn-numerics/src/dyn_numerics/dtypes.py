"""Dtypes that belong to one another."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cast", "real_dtype", "wide_dtype"]


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in another dtype; of a complex one that is to be real, the real part."""
    return (x.real if x.is_complex() and not dtype.is_complex else x).to(dtype)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real parts of a complex dtype; a real one itself."""
    # Not dtype.to_real(), which torch.compile cannot trace.
    if dtype == torch.complex128:
        return torch.float64
    return torch.float32 if dtype == torch.complex64 else dtype


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which states of a dtype are combined: their own, float32 at least."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
