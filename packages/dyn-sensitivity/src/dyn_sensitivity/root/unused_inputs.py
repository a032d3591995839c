"""Gradients of inputs that a root does not depend on: zeros, and not none at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["with_zeros"]


def with_zeros(root: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """A root, `[batch, N]`, with one more share of the gradient for some inputs, which is zero.

    Args:
        root: The root, with all the derivatives that it has.
        inputs: Tensors that want gradients, of any shape.
    """
    found: Tensor = _WithZeros.apply(root, *inputs) if inputs else root  # type: ignore[no-untyped-call]
    return found


class _WithZeros(torch.autograd.Function):
    """Maps a root and tensors that it does not depend on to the root."""

    @staticmethod
    def forward(root: Tensor, *inputs: Tensor) -> Tensor:
        return root.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(x) for x in ctx.saved_tensors)
