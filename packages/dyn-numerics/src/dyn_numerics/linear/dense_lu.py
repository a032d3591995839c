"""Gaussian elimination."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.linear_solver import LinearSolution, LinearSolver
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import count_from_zero
from dyn_numerics.transforms import under_transform

__all__ = ["DenseLU", "Factors"]

LARGEST_UNROLLED = 5  # beyond it LAPACK is as fast, and the program long to compile


class Factors(NamedTuple):
    """A matrix as `P L U`, in LAPACK's layout.

    Attributes:
        lu: `U` and, below the diagonal, `L` without its ones, `[*lead, N, N]`.
        pivots: The row that row `k` was exchanged with in step `k`, counted from 1, `[*lead, N]`, int32.
        singular: Whether a pivot is zero or not finite, `[*lead]`.
    """

    lu: Tensor
    pivots: Tensor
    singular: Tensor


class DenseLU(LinearSolver):
    """Gaussian elimination with partial pivoting, on the operator's matrix: one call of the operator, no iteration.

    It is exact to rounding, so that `rtol` has no bearing: a sample has converged if its matrix is regular. One that is
    singular to working precision breaks down, its solution is NaN, and its neighbours do not notice. `factor` and
    `solve_factored` serve those who solve with one matrix several times.

    Inside of `torch.compile` real matrices of up to 5 rows are eliminated in operations on all samples at once, which fuse
    into one loop; LAPACK is called for every other, sample by sample.

    Example:
        >>> import torch
        >>> from dyn_numerics import DenseLU, MatrixOperator
        >>> operator = MatrixOperator(torch.tensor([[[0.0, 2.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        >>> found = DenseLU().solve(operator, torch.ones(2, 2))
        >>> found.x
        tensor([[1.0000, 0.5000],
                [   nan,    nan]])
        >>> found.breakdown
        tensor([False,  True])

    References:
        - G. H. Golub, C. F. Van Loan: Matrix Computations, 4th ed. (2013), algorithm 3.4.1.
    """

    def __init__(self) -> None:
        super().__init__()

    def extra_repr(self) -> str:
        return ""

    def run(self, operator: LinearOperator, b: Tensor, x0: Tensor | None, rtol: Tensor) -> LinearSolution:
        matrix = operator.matrix()
        factors = self.factor(matrix)
        x = self.solve_factored(factors, b)
        converged = torch.isfinite(x).all(-1)
        return LinearSolution(
            x=x,
            residual=vector_norm(b - (matrix @ x.unsqueeze(-1)).squeeze(-1), dim=-1),
            converged=converged,
            breakdown=~converged,
            n_steps=torch.ones_like(converged, dtype=torch.int64),
            n_products=count_from_zero(b) + 1,
        )

    def factor(self, matrix: Tensor) -> Factors:
        """Factorises matrices, `[*lead, N, N]`, in float32, float64, complex64 or complex128."""
        if _unrolls(matrix):
            lu, pivots = _eliminate(matrix)
        else:
            lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        diagonal = torch.diagonal(lu, dim1=-2, dim2=-1)
        return Factors(lu, pivots, ((diagonal == 0) | ~torch.isfinite(diagonal)).any(-1))

    def solve_factored(self, factors: Factors, b: Tensor) -> Tensor:
        """Solves for one right-hand side per matrix, `[*lead, N]`; NaN where the matrix is singular."""
        if _unrolls(factors.lu):
            x = _substitute(factors.lu, factors.pivots, b)
        elif under_transform():
            x = _substitute_differentiably(factors, b)
        else:
            x = torch.linalg.lu_solve(factors.lu, factors.pivots, b.unsqueeze(-1)).squeeze(-1)
        return torch.where(factors.singular.unsqueeze(-1), torch.nan, x)


def _unrolls(matrix: Tensor) -> bool:
    # The compiler fuses no operation on complex numbers.
    return torch.compiler.is_compiling() and matrix.shape[-1] <= LARGEST_UNROLLED and not matrix.is_complex()


def _eliminate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK's factorisation of matrices `[*lead, N, N]`, written out in numbers `[*lead]`."""
    columns = [list(column.unbind(-1)) for column in matrix.unbind(-1)]
    size = len(columns)
    pivots = []
    for k, column in enumerate(columns):
        pivot, largest = torch.full_like(column[k], k, dtype=torch.int32), column[k].abs()
        for i in range(k + 1, size):
            larger = column[i].abs() > largest
            pivot, largest = torch.where(larger, i, pivot), torch.where(larger, column[i].abs(), largest)
        pivots.append(pivot + 1)
        for other in columns:
            _exchange(other, k, pivot)
        for i in range(k + 1, size):
            column[i] = column[i] / column[k]
            for other in columns[k + 1 :]:
                other[i] = other[i] - column[i] * other[k]
    lu = torch.stack([torch.stack(column, -1) for column in columns], -1)
    return lu, torch.stack(pivots, -1)


def _substitute(lu: Tensor, pivots: Tensor, b: Tensor) -> Tensor:
    """Solves `P L U x = b`, `[*lead, N]`, written out in numbers `[*lead]`."""
    columns = [column.unbind(-1) for column in lu.unbind(-1)]
    x = list(b.unbind(-1))
    size = len(x)
    for k in range(size):
        _exchange(x, k, pivots[..., k] - 1)
    for k in range(size):
        for i in range(k + 1, size):
            x[i] = x[i] - columns[k][i] * x[k]
    for k in reversed(range(size)):
        x[k] = x[k] / columns[k][k]
        for i in range(k):
            x[i] = x[i] - columns[k][i] * x[k]
    return torch.stack(x, -1)


def _exchange(column: list[Tensor], k: int, pivot: Tensor) -> None:
    """Exchanges number `k` of a column with the one at `pivot`, which is not before it."""
    first = column[k]
    for i in range(k + 1, len(column)):
        here = pivot == i
        column[k] = torch.where(here, column[i], column[k])
        column[i] = torch.where(here, first, column[i])


def _substitute_differentiably(factors: Factors, b: Tensor) -> Tensor:
    """Solves `P L U x = b`, `[*lead, N]`, by triangular systems: under `vmap` torch's `lu_solve` has wrong derivatives."""
    exchanges, lower, upper = torch.lu_unpack(factors.lu, factors.pivots)
    right = exchanges.mT @ b.unsqueeze(-1)
    y = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    x: Tensor = torch.linalg.solve_triangular(upper, y, upper=True).squeeze(-1)
    return x
