"""What methods and controllers carry over: a tensor, a number, None, or tuples of such."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["structure", "tensors"]


def structure(value: Any) -> Any:
    """What has to agree for values to be selected among: the tuples, and the shapes and dtypes of the tensors in them.

    Args:
        value: What is carried over.

    Example:
        >>> import torch
        >>> structure((torch.ones(2), None))
        (([2], torch.float32), 'NoneType')
    """
    if isinstance(value, tuple):
        return tuple(structure(part) for part in value)
    return (list(value.shape), value.dtype) if isinstance(value, Tensor) else type(value).__name__


def tensors(value: Any) -> list[Tensor]:
    """The tensors in it, in order.

    Args:
        value: What is carried over.
    """
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return [value] if isinstance(value, Tensor) else []
