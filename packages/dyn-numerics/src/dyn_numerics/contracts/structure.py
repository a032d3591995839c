"""What methods and controllers carry over: a tensor, a number, None, or a pytree of such."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["structure", "tensors"]


def structure(value: Any) -> Any:
    """What has to agree for values to be selected among: the pytree, and the shapes and dtypes of the tensors in it.

    Args:
        value: What is carried over.

    Example:
        >>> import torch
        >>> structure((torch.ones(2), None))
        (([2], torch.float32), 'NoneType')
    """
    return tree_map(_kind, value)


def tensors(value: Any) -> list[Tensor]:
    """The tensors in it, in order.

    Args:
        value: What is carried over.
    """
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _kind(leaf: Any) -> Any:
    return (list(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__
