"""Tensors that a user declares because a field captures them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from dyn_numerics.arguments import kind_of
from dyn_numerics.transforms import in_forward_mode, under_transform

__all__ = ["declared_tensors"]


def declared_tensors(params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns what was given as `params`, as a tuple.

    Args:
        params: Tensors that want gradients.

    Raises:
        TypeError: If they are not a sequence of floating or complex tensors.
        ValueError: If one is detached, where gradients are recorded.
    """
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"params: got {kind_of(params)}, expected a sequence of tensors; try params=(tensor,)")
    tensors = tuple(params)
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"params: got {kind_of(tensor)} at index {i}, expected a tensor; try params=(tensor,)")
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(
                f"params: got dtype {tensor.dtype} at index {i}, which has no gradient, expected a floating or complex one"
            )
        wants = tensor.requires_grad or isinstance(tensor, nn.Parameter)  # a parameter may be frozen
        if not wants and torch.is_grad_enabled() and not (under_transform() or in_forward_mode()):
            raise ValueError(
                f"params: got at index {i} a tensor that is detached, expected one that requires a gradient; call its "
                f"requires_grad_(), or leave it out"
            )
    return tensors
