"""Gaussian elimination."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.linear_solver import LinearSolution, LinearSolver
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.linear.written_out_elimination import eliminate, substitute
from dyn_numerics.loop import count_from_zero
from dyn_numerics.transforms import under_transform

__all__ = ["DenseLU", "Factors", "WrittenOutFactors"]

LARGEST_UNROLLED = 6  # with 8 rows it takes half of LAPACK's time, but forty seconds more to compile


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

    def solve(self, b: Tensor) -> Tensor:
        """Solves for one right-hand side per matrix, `[*lead, N]`."""
        if under_transform():
            return _solve_differentiably(self, b)
        x: Tensor = torch.linalg.lu_solve(self.lu, self.pivots, b.unsqueeze(-1))
        return x.squeeze(-1)


class WrittenOutFactors(NamedTuple):
    """A small matrix as `P L U`, in a compiled program.

    Attributes:
        lu: `U` with the inverses of its diagonal and below them `L` without its ones, `[*lead, N, N]`.
        order: Which row of the matrix each of theirs is, `[*lead, N]`, int64.
        singular: Whether a pivot is zero or not finite, `[*lead]`.
    """

    lu: Tensor
    order: Tensor
    singular: Tensor

    def solve(self, b: Tensor) -> Tensor:
        """Solves for one right-hand side per matrix, `[*lead, N]`."""
        return substitute(self.lu, self.order, b)


class DenseLU(LinearSolver):
    """Gaussian elimination with partial pivoting, on the operator's matrix: one call of the operator, no iteration.

    It is exact to rounding, so that `rtol` has no bearing: a sample has converged if its matrix is regular. One that is
    singular to working precision breaks down, its solution is NaN, and its neighbours do not notice. `factor` and
    `solve_factored` serve those who solve with one matrix several times.

    Inside of `torch.compile` real matrices of up to 6 rows are eliminated in operations on all samples at once, which fuse
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

    def factor(self, matrix: Tensor) -> Factors | WrittenOutFactors:
        """Factorises matrices, `[*lead, N, N]`, in float32, float64, complex64 or complex128."""
        if _unrolls(matrix):
            lu, order = eliminate(matrix)
            return WrittenOutFactors(lu, order, _has_no_inverse(lu))
        lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return Factors(lu, pivots, _has_no_inverse(lu))

    def solve_factored(self, factors: Factors | WrittenOutFactors, b: Tensor) -> Tensor:
        """Solves for one right-hand side per matrix, `[*lead, N]`; NaN where the matrix is singular."""
        return torch.where(factors.singular.unsqueeze(-1), torch.nan, factors.solve(b))


def _unrolls(matrix: Tensor) -> bool:
    # The compiler fuses no operation on complex numbers.
    return torch.compiler.is_compiling() and matrix.shape[-1] <= LARGEST_UNROLLED and not matrix.is_complex()


def _has_no_inverse(lu: Tensor) -> Tensor:
    """Whether a number on the diagonal is zero or not finite, `[*lead]`; then neither is its inverse a number but zero."""
    diagonal = torch.diagonal(lu, dim1=-2, dim2=-1)
    return ((diagonal == 0) | ~torch.isfinite(diagonal)).any(-1)


def _solve_differentiably(factors: Factors, b: Tensor) -> Tensor:
    """Solves `P L U x = b`, `[*lead, N]`, by triangular systems: under `vmap` torch's `lu_solve` has wrong derivatives."""
    exchanges, lower, upper = torch.lu_unpack(factors.lu, factors.pivots)
    right = exchanges.mT @ b.unsqueeze(-1)
    y = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    x: Tensor = torch.linalg.solve_triangular(upper, y, upper=True).squeeze(-1)
    return x
