"""What the tests of linear solvers share: matrices with given eigenvalues, an operator that counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dyn_numerics import LinearOperator, MatrixOperator


class CountedOperator(LinearOperator):
    """A matrix that counts the calls of its operator."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix[..., 0])
        self.operator = MatrixOperator(matrix)
        self.calls = 0

    def __call__(self, v: Tensor) -> Tensor:
        self.calls += 1
        return self.operator(v)

    def matrix(self) -> Tensor:
        self.calls += 1
        return self.operator.matrix()

    def adjoint(self) -> CountedOperator:
        return CountedOperator(self.operator.matrix().mH)


@pytest.fixture
def counted_operator() -> type[CountedOperator]:
    return CountedOperator


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def random() -> Callable[..., Tensor]:
    """Normally distributed numbers of a shape, a dtype and a seed."""
    return normal


@pytest.fixture
def with_eigenvalues() -> Callable[..., Tensor]:
    """Hermitian matrices `[*lead, N, N]` with given real eigenvalues."""

    def matrices(values: Tensor, *lead: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        size = values.shape[-1]
        q = torch.linalg.qr(normal(*lead, size, size, dtype=dtype, seed=seed))[0]
        matrix = (q * values) @ q.mH
        return (matrix + matrix.mH) / 2

    return matrices
