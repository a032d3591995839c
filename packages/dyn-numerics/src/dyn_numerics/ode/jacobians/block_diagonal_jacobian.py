"""The Jacobian of a field whose state consists of parts that do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive_integer
from dyn_numerics.linear.dense_lu import DenseLU, Factors, WrittenOutFactors
from dyn_numerics.ode.jacobians.assembled_jacobian import AssembledJacobian
from dyn_numerics.ode.jacobians.dense_jacobian import newton_matrix
from dyn_numerics.ode.jacobians.field_jacobian import Solved
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField

__all__ = ["BlockDiagonalJacobian", "BlockFactors"]


class BlockFactors(NamedTuple):
    """Factorised blocks on the diagonal of a matrix.

    Attributes:
        blocks: Each of them, `[*lead, N / b]` matrices.
        singular: Whether any of them is singular, `[*lead]`.
    """

    blocks: Factors | WrittenOutFactors
    singular: Tensor


class BlockDiagonalJacobian(AssembledJacobian):
    """Blocks on the diagonal, for a state of equal parts that do not see each other, by Gaussian elimination.

    Many small systems in one joint state are such a state, and so is a field of reactions at many points. The parts are
    consecutive elements of the flattened state, as of a state `[parts, b]`. All blocks are found at once, by one call of
    the field that is differentiated along `b` directions; memory is `[*lead, N b]`.

    Args:
        block_size: Elements of a part, b.
        jac: The user's blocks `jac(t, x, *args)`, for a state that is a single tensor: `[N / b, b, b]`, or with
            `stepping="per_sample"` `[batch, N / b, b, b]`; in the state's dtype, derivatives of outputs first, then of inputs,
            per time unit.
        check: Whether every Jacobian is compared with the field, as in `DenseJacobian`; parts that do see each other are
            found as well.

    Raises:
        TypeError: As `DenseJacobian`.
        ValueError: If `block_size` is not a positive integer; in a solve, if it does not divide the state; as
            `DenseJacobian`.

    Example:
        >>> import torch
        >>> from dyn_numerics import BlockDiagonalJacobian
        >>> f = lambda t, x: torch.stack([x[:, 1], x[:, 0] ** 2], -1)
        >>> flat = lambda t, x: f(t, x.reshape(3, 2)).flatten()
        >>> x = torch.tensor([1.0, 0.0, 2.0, 0.0, 3.0, 0.0])
        >>> BlockDiagonalJacobian(2).linearise(flat, torch.tensor(0.0), x).jacobian[2]
        tensor([[0., 1.],
                [6., 0.]])
    """

    def __init__(self, block_size: int, jac: Callable[..., Any] | None = None, check: bool = False) -> None:
        super().__init__(jac, check)
        self.block_size = positive_integer("block_size", block_size)

    def extra_repr(self) -> str:
        rest = super().extra_repr()
        return f"block_size={self.block_size}" + (f", {rest}" if rest else "")

    def check_size(self, size: int) -> None:
        if size % self.block_size:
            raise ValueError(f"block_size: got {self.block_size}, expected a divisor of the state's {size} elements")

    def directions(self, x: Tensor) -> Tensor:
        self.check_size(x.shape[-1])
        units = torch.eye(self.block_size, dtype=x.dtype, device=x.device)
        return units.repeat(1, x.shape[-1] // self.block_size)

    def assemble(self, products: Tensor) -> Tensor:
        b = self.block_size
        return products.movedim(0, -1).reshape(*products.shape[1:-1], -1, b, b)

    def form(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        b = self.block_size
        return (prod(shape) // b, b, b), "derivatives of outputs by inputs of each part"

    def arrange(self, found: Tensor, x: Tensor) -> Tensor:
        return found

    def product(self, jacobian: Tensor, v: Tensor) -> Tensor:
        return (jacobian @ self._parts(v).unsqueeze(-1)).reshape(v.shape)

    def factorise(self, jacobian: Tensor, shift: Scalar) -> BlockFactors:
        blocks = DenseLU().factor(newton_matrix(jacobian, shift))
        return BlockFactors(blocks, blocks.singular.any(-1))

    def solve(self, f: FlatField, factors: BlockFactors, b: Tensor) -> Solved:
        return Solved(DenseLU().solve_factored(factors.blocks, self._parts(b)).reshape(b.shape))

    def _parts(self, v: Tensor) -> Tensor:
        """Vectors `[*lead, N]` as `[*lead, N / b, b]`."""
        return v.reshape(*v.shape[:-1], -1, self.block_size)
