"""Norms of scaled errors."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

__all__ = ["rms_norm"]


def rms_norm(x: Tensor, dim: int | None = None) -> Tensor:
    """Root mean square of the magnitudes of all elements.

    Args:
        x: Real or complex, any shape; half precision is accumulated in float32.
        dim: The dimension that is reduced; all of them when None.

    Returns:
        Real, non-negative, of shape `[]`, or that of `x` without `dim`; 0 for an empty tensor.
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, dtype=torch.float32 if half else None)
    return norm / sqrt(max(x.numel() if dim is None else x.shape[dim], 1))
