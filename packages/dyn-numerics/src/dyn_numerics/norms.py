"""Norms of vectors."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

__all__ = ["norm_at_any_scale", "rms_norm", "rms_norm_at_any_scale"]


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


def rms_norm_at_any_scale(x: Tensor) -> Tensor:
    """Root mean square over the last dimension, of elements whose squares may not fit into their dtype.

    Args:
        x: Real or complex, `[..., N]`.

    Returns:
        Real, non-negative, `[...]`; 0 for N = 0.
    """
    return norm_at_any_scale(x) / sqrt(max(x.shape[-1], 1))


def norm_at_any_scale(x: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, of elements whose squares may not fit into their dtype.

    Args:
        x: Real or complex, `[..., N]`.

    Returns:
        Real, non-negative, `[...]`.
    """
    norm: Tensor
    if not x.shape[-1]:
        norm = torch.linalg.vector_norm(x, dim=-1)
        return norm
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    unit = torch.where((largest > 0) & torch.isfinite(largest), largest, 1)
    norm = torch.linalg.vector_norm(x / unit, dim=-1) * unit.squeeze(-1)
    return norm
