"""What the tests of linear solvers share: matrices with given eigenvalues, an operator that counts."""

from __future__ import annotations

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


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_eigenvalues(values: Tensor, *lead: int, seed: int = 0) -> Tensor:
    """Hermitian matrices `[*lead, N, N]` with given eigenvalues, real ones for real values."""
    size = values.shape[-1]
    q = torch.linalg.qr(random(*lead, size, size, dtype=values.dtype, seed=seed))[0]
    matrix = (q * values) @ q.mH
    return (matrix + matrix.mH) / 2
