"""Gradients that cannot be differentiated again say so, instead of being constants to whoever tries: silent zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["refuse_second_derivatives"]


def refuse_second_derivatives(
    sensitivity: str, gradients: Sequence[Tensor], dependencies: Sequence[Tensor]
) -> list[Tensor]:
    """Returns the gradients, which raise when they are differentiated.

    Args:
        sensitivity: Name of the algorithm that computed them, for the message.
        gradients: The gradients.
        dependencies: What they depend on.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.ode.second_derivatives import refuse_second_derivatives
        >>> x = torch.ones(1, requires_grad=True)
        >>> (once,) = refuse_second_derivatives("adjoint", [torch.ones(1)], [x])
        >>> once.requires_grad
        True
    """
    if not torch.is_grad_enabled():
        return list(gradients)
    return list(_Refuse.apply(sensitivity, len(gradients), *gradients, *dependencies))  # type: ignore[no-untyped-call]


class _Refuse(torch.autograd.Function):
    """Maps `n` gradients and what they depend on to the gradients."""

    @staticmethod
    def forward(sensitivity: str, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.clone() for gradient in tensors[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.sensitivity = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            f"sensitivity={ctx.sensitivity!r}: its gradient was differentiated again, which it does not support; "
            f"use sensitivity='autograd'"
        )
