"""What a method remembers of its last steps: a ring of vectors for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.transforms import under_transform

__all__ = ["write"]


def write(ring: Tensor, place: int | Tensor, vector: Tensor) -> Tensor:
    """A ring with another vector in one place.

    Without gradients the ring itself is written into, which costs no copy: a `carry` is used once.

    Args:
        ring: `[batch, m, ...]`.
        place: Index of the place, an integer, or inside of `torch.compile` a tensor `[]`.
        vector: `[batch, ...]`.
    """
    if isinstance(place, int) and not (torch.is_grad_enabled() or under_transform()):
        ring[:, place] = vector
        return ring
    here = torch.arange(ring.shape[1], device=ring.device) == place
    return torch.where(here.reshape(-1, *[1] * (ring.dim() - 2)), vector.unsqueeze(1), ring)
