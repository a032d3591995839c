"""What a method remembers of its last steps: a ring of vectors for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.transforms import under_transform

__all__ = ["combination", "products", "write"]


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


def products(ring: Tensor, vector: Tensor) -> Tensor:
    """Inner products of the vectors in a ring with another, `[batch, m]`.

    Elementwise, as all that reduces a sample: matrix products of a library may round by a sample's place in memory.

    Args:
        ring: `[batch, m, N]`; conjugated if it is complex.
        vector: `[batch, N]`.
    """
    return (ring.conj() * vector.unsqueeze(1)).sum(dim=-1)


def combination(weights: Tensor, ring: Tensor) -> Tensor:
    """The sum of the vectors in a ring with weights, `[batch, N]`.

    Args:
        weights: `[batch, m]`.
        ring: `[batch, m, N]`.
    """
    return (weights.unsqueeze(-1) * ring).sum(dim=1)
