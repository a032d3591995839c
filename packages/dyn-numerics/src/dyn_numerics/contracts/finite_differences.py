"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dyn_numerics.contracts.expectation import expect

__all__ = ["check_gradients"]


def check_gradients(what: str, loss: Callable[[], Tensor], inputs: Mapping[str, Tensor]) -> None:
    """Compares the gradients of a loss with finite differences, each along some direction.

    Args:
        what: What is differentiated, for the sentence.
        loss: Computes it from the inputs, float64.
        inputs: Its inputs by name, float64 leaves. They are written into, and require gradients from now on.

    Raises:
        AssertionError: If a gradient differs.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.3, 0.7], dtype=torch.float64)
        >>> check_gradients("square", lambda: (x**2).sum(), {"x": x})
    """
    __tracebackhide__ = True
    for tensor in inputs.values():
        tensor.requires_grad_()
    value = loss()
    gradients: Sequence[Tensor | None] = [None] * len(inputs)
    if value.requires_grad:
        gradients = torch.autograd.grad(value, list(inputs.values()), allow_unused=True)
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device)
        direction = direction / torch.linalg.vector_norm(direction)  # there may be many entries, and large ones
        with torch.no_grad():
            expected = _derivative(lambda: loss().item(), tensor, direction)
        found = 0.0 if gradient is None else (gradient * direction).sum().item()
        expect(
            abs(found - expected) <= 1e-7 * (1 + abs(expected)),
            f"{what}: the gradient to {name} is {found:.10g} in some direction, expected {expected:.10g} as finite "
            f"differences say; compute with tensors only, and without detach",
        )


def _derivative(loss: Callable[[], float], x: Tensor, direction: Tensor, h: float = 1e-3) -> float:
    """Derivative of a loss along a direction of one of its inputs, by central differences of order 4."""
    values = []
    for steps in (-2, -1, 1, 2):
        x.add_(steps * h * direction)
        values.append(loss())
        x.sub_(steps * h * direction)
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
