"""The Jacobian of a field whose elements see their near neighbours only."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.linear.cyclic_reduction import Level, reduce_cyclically, solve_reduced
from dyn_numerics.ode.jacobians.assembled_jacobian import AssembledJacobian, trial_vector
from dyn_numerics.ode.jacobians.field_jacobian import Solved
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField

__all__ = ["BandedFactors", "BandedJacobian"]

SMALLEST_BLOCK = 8  # smaller ones cost as much time, and rows are exchanged within a block only


class BandedFactors(NamedTuple):
    """A factorised band matrix.

    Attributes:
        levels: Its cyclic reduction.
        singular: Whether a system that was solved with it on trial has a large residual, `[*lead]`.
    """

    levels: tuple[Level, ...]
    singular: Tensor


class BandedJacobian(AssembledJacobian):
    """A band along the diagonal, for a state whose elements see their near neighbours only, in time linear in N.

    Elements are those of the flattened state: of a state `[points, species]` with diffusion the neighbours at the next
    point are `species` elements away. The band is found by one call of the field that is differentiated along
    `lower + upper + 1` directions, each the sum of unit vectors that no element sees two of. Linear systems are solved by
    block cyclic reduction, in a number of operations that grows with the logarithm of N. It exchanges rows within blocks
    alone, which suffices where diffusion or dissipation dominates a step; where digits have been lost, as a system that is
    solved on trial tells, the matrix counts as singular, and a method tries a shorter step. Memory is `[*lead, N b]` for
    blocks of size b, the larger of `lower` and `upper` or a multiple of it that is at least 8.

    Args:
        lower: Number of diagonals below the main one.
        upper: Number of diagonals above it.
        jac: The user's band `jac(t, x, *args)`, for a state that is a single tensor: `[lower + upper + 1, N]`, or with
            `stepping="per_sample"` `[batch, lower + upper + 1, N]`, in the state's dtype, per time unit. The derivative of
            element i by element j stands in row `upper + i - j` and column j, as in `scipy.linalg.solve_banded`; entries that
            belong to no such pair do not matter.
        check: Whether every Jacobian is compared with the field, as in `DenseJacobian`; derivatives outside of the band are
            found as well.

    Raises:
        TypeError: As `DenseJacobian`.
        ValueError: If `lower` or `upper` is not a non-negative integer; as `DenseJacobian`.

    Example:
        >>> import torch
        >>> from dyn_numerics import BandedJacobian
        >>> diffusion = lambda t, x: torch.nn.functional.pad(x.diff(), (1, 1)).diff()
        >>> jacobian = BandedJacobian(lower=1, upper=1)
        >>> near = jacobian.linearise(diffusion, torch.tensor(0.0), torch.ones(100))
        >>> near.jacobian[:2]
        tensor([[ 0., -1.,  1.],
                [ 1., -2.,  1.]])
        >>> factors = jacobian.factorise(near.jacobian, 10.0)
        >>> torch.allclose(jacobian.solve(diffusion, factors, torch.ones(100)).x, torch.ones(100))
        True

    References:
        - A. R. Curtis, M. J. D. Powell, J. K. Reid: On the estimation of sparse Jacobian matrices (1974).
        - D. Heller: Some aspects of the cyclic reduction algorithm for block tridiagonal linear systems (1976).
    """

    def __init__(self, lower: int, upper: int, jac: Callable[..., Any] | None = None, check: bool = False) -> None:
        super().__init__(jac, check)
        self.lower, self.upper = _count("lower", lower), _count("upper", upper)

    @property
    def width(self) -> int:
        """Number of diagonals."""
        return self.lower + self.upper + 1

    def extra_repr(self) -> str:
        rest = super().extra_repr()
        return f"lower={self.lower}, upper={self.upper}" + (f", {rest}" if rest else "")

    def directions(self, x: Tensor) -> Tensor:
        columns = torch.arange(x.shape[-1], device=x.device) % self.width
        return (columns == torch.arange(self.width, device=x.device).unsqueeze(-1)).to(x.dtype)

    def assemble(self, products: Tensor) -> Tensor:
        """The rows of the band, `[*lead, N, lower + upper + 1]`: what element i sees of elements `i - lower` and after."""
        rows, columns, inside = self._places(products)
        return torch.where(inside, products.movedim(0, -1)[..., rows, columns % self.width], 0)

    def form(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        return (self.width, prod(shape)), "diagonals from the uppermost on, as scipy.linalg.solve_banded has them"

    def arrange(self, found: Tensor, x: Tensor) -> Tensor:
        rows, columns, inside = self._places(x)
        return torch.where(inside, found[..., self.upper + rows - columns, columns.clamp(0, x.shape[-1] - 1)], 0)

    def product(self, jacobian: Tensor, v: Tensor) -> Tensor:
        _, columns, inside = self._places(v)
        return (jacobian * torch.where(inside, v[..., columns.clamp(0, v.shape[-1] - 1)], 0)).sum(-1)

    def factorise(self, jacobian: Tensor, shift: Scalar) -> BandedFactors:
        if isinstance(shift, Tensor):
            shift = shift.to(jacobian.dtype)[..., None, None]
        diagonal = torch.arange(self.width, device=jacobian.device) == self.lower
        matrix = diagonal.to(jacobian.dtype) - shift * jacobian
        levels = reduce_cyclically(self._blocks(matrix))
        with torch.no_grad():
            v = trial_vector(jacobian[..., 0]).expand(jacobian.shape[:-1])
            right = self.product(matrix, v)
            found = self._solve(levels, right)
            size = self.product(matrix.abs(), found.abs()) + right.abs()
            residual = (self.product(matrix, found) - right).abs().amax(-1)
            singular = ~(residual <= torch.finfo(v.dtype).eps ** 0.5 * size.amax(-1))
        return BandedFactors(levels, singular)

    def solve(self, f: FlatField, factors: BandedFactors, b: Tensor) -> Solved:
        return Solved(torch.where(factors.singular.unsqueeze(-1), torch.nan, self._solve(factors.levels, b)))

    @property
    def _block(self) -> int:
        """Size of the blocks, of which each sees the next ones only."""
        reach = max(self.lower, self.upper, 1)
        return reach * -(-SMALLEST_BLOCK // reach)

    def _places(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column, and whether there is such an element, of what is stored for vectors `[..., N]`, `[N, width]`."""
        size = like.shape[-1]
        rows = torch.arange(size, device=like.device).unsqueeze(-1)
        columns = rows + torch.arange(-self.lower, self.upper + 1, device=like.device)
        return rows.expand_as(columns), columns, (columns >= 0) & (columns < size)

    def _blocks(self, matrix: Tensor) -> Tensor:
        """Rows of blocks, `[*lead, M, b, 3 b]`, of rows of the band; below the matrix, an identity."""
        size, b = matrix.shape[-2], self._block
        rows = torch.arange(-(-size // b) * b, device=matrix.device).reshape(-1, b, 1)
        columns = rows[:, :1] - b + torch.arange(3 * b, device=matrix.device)
        place = columns - rows + self.lower
        stored = (place >= 0) & (place < self.width) & (rows < size)
        found = matrix[..., rows.clamp(max=size - 1), place.clamp(0, self.width - 1)]
        return torch.where(stored, found, ((rows == columns) & (rows >= size)).to(matrix.dtype))

    def _solve(self, levels: tuple[Level, ...], right: Tensor) -> Tensor:
        size, b = right.shape[-1], self._block
        padded = torch.nn.functional.pad(right, (0, -size % b))
        return solve_reduced(levels, padded.reshape(*right.shape[:-1], -1, b)).flatten(-2)[..., :size]


def _count(name: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
        raise ValueError(f"{name}: got {number!r}, expected a number of diagonals, 0 or more")
    return int(number)
