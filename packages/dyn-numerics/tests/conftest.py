"""What the tests share: one core, a problem with a known answer, a field that counts, a fitted order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dyn_numerics.contracts.measured_order import measured_order

torch.set_num_threads(1)


class Growth:
    """The non-autonomous problem x' = x cos t and its solution."""

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return x * torch.cos(t)

    def exact(self, t: Tensor, t0: float = 0.0, x0: float = 1.0) -> Tensor:
        return x0 * torch.exp(torch.sin(t) - math.sin(t0))


@pytest.fixture
def growth() -> Growth:
    return Growth()


class Counted:
    """A field that writes down when it was evaluated."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.times: list[Tensor] = []

    def __call__(self, t: Tensor, x: Any, *args: Any) -> Any:
        self.times.append(t.detach())
        return self.f(t, x, *args)

    @property
    def calls(self) -> int:
        return len(self.times)


@pytest.fixture
def counted() -> type[Counted]:
    return Counted


@pytest.fixture(scope="session")
def fitted_order() -> Callable[..., float]:
    return measured_order


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reads of tensors by the host as they happen: the names of those methods of tensors that make a host number."""
    reads: list[str] = []
    numbers = ("__bool__", "__float__", "__int__", "__index__", "__complex__")
    for name in ("item", "tolist", "numpy", "cpu", "nonzero", *numbers):
        original = getattr(Tensor, name)

        def counted(
            self: Tensor, *args: Any, name: str = name, original: Callable[..., Any] = original, **options: Any
        ) -> Any:
            reads.append(name)
            return original(self, *args, **options)

        monkeypatch.setattr(Tensor, name, counted)
    return reads
