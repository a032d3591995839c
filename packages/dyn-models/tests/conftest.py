from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


@pytest.fixture
def slope_along() -> Callable[..., float]:
    """The derivative of a loss along directions of tensors that it reads, by differences of order four."""

    @torch.no_grad()
    def measure(loss: Callable[[], Tensor], tensors: list[Tensor], directions: list[Tensor], h: float = 1e-3) -> float:
        starts, total = [tensor.clone() for tensor in tensors], 0.0
        for weight, k in ((8, 1), (-8, -1), (-1, 2), (1, -2)):
            for tensor, start, direction in zip(tensors, starts, directions, strict=True):
                tensor.copy_(start + k * h * direction)
            total += weight * loss().item()
        for tensor, start in zip(tensors, starts, strict=True):
            tensor.copy_(start)
        return total / (12 * h)

    return measure
