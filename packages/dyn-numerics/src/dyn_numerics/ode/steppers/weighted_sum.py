"""Sums of slopes, or of what stages add to a state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar

__all__ = ["weighted_sum"]


def weighted_sum(weights: Iterable[Scalar], vectors: Sequence[Tensor], total: Tensor | None = None) -> Tensor:
    """`total + sum_j weights_j vectors_j`, element by element, so that no sample's rounding depends on its place.

    Args:
        weights: Numbers, or tensors `[*lead]`; where there are more than vectors, the rest is for those to come.
        vectors: Of shape `[*lead, N]`, at least one.
        total: What they are added to, `[*lead, N]`; zero if not given.

    Example:
        >>> import torch
        >>> from dyn_numerics.ode.steppers.weighted_sum import weighted_sum
        >>> weighted_sum([0.5, 2.0], [torch.ones(2), torch.tensor([1.0, 2.0])])
        tensor([2.5000, 4.5000])
    """
    for weight, vector in zip(weights, vectors, strict=False):
        if isinstance(weight, Tensor):
            term = weight.unsqueeze(-1) * vector
            total = term if total is None else total + term
        elif weight:
            total = vector * weight if total is None else torch.add(total, vector, alpha=weight)
    return torch.zeros_like(vectors[0]) if total is None else total
