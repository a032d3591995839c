"""Small equilibrium networks, and gradients held against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn


class Equilibrium:
    """The map `tanh(W z + U x)` with a symmetric W of norm `rate`, in float64 unless told otherwise."""

    def __init__(self, size: int = 8, inputs: int = 3, rate: float = 0.9) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(size, size, dtype=torch.float64, generator=generator)
        self.weight = rate * (drawn + drawn.T) / torch.linalg.matrix_norm(drawn + drawn.T, 2)
        self.input_weight = 0.5 * torch.randn(size, inputs, dtype=torch.float64, generator=generator)
        self.size, self.inputs = size, inputs

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight.to(z.dtype).T + x @ self.input_weight.to(z.dtype).T)

    def draw(self, count: int, seed: int) -> Tensor:
        return torch.randn(count, self.inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, self.size, dtype=torch.float64)


@pytest.fixture
def equilibrium() -> Equilibrium:
    return Equilibrium()


class Guess(nn.Module):
    """A guess of the fixed point from the input, which starts as zero."""

    def __init__(self, inputs: int, size: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, width, dtype=torch.float64)
        self.last = nn.Linear(width, size, dtype=torch.float64)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        guess: Tensor = self.last(torch.tanh(self.hidden(x)))
        return guess


@pytest.fixture
def guess(equilibrium: Equilibrium) -> Guess:
    torch.manual_seed(0)
    return Guess(equilibrium.inputs, equilibrium.size)


@pytest.fixture
def shaken() -> Callable[[nn.Module], nn.Module]:
    """Draws the parameters of a module anew, away from zero."""

    def shake(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
        return module.double()

    return shake


def check_gradients(loss: Callable[[], Tensor], tensors: Sequence[Tensor], rtol: float = 1e-6) -> None:
    """Holds gradients against central differences, along a direction in each tensor; none may vanish."""
    gradients = torch.autograd.grad(loss(), tensors)
    generator = torch.Generator().manual_seed(3)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        direction = torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
        sides = []
        with torch.no_grad():
            for length in (1e-5, -1e-5):
                tensor.add_(direction, alpha=length)
                sides.append(loss().item())
                tensor.sub_(direction, alpha=length)
        expected = (sides[0] - sides[1]) / 2e-5
        found = (gradient * direction).sum().item()
        assert found != 0
        assert math.isclose(found, expected, rel_tol=rtol, abs_tol=1e-9), (tuple(tensor.shape), found, expected)


@pytest.fixture
def gradients() -> Callable[..., None]:
    return check_gradients


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks that are made in a test are the same every time."""
    torch.manual_seed(0)
