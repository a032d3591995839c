"""The Jacobian of a field as a full matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.linear.dense_lu import DenseLU, Factors
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian, Linearisation
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField

__all__ = ["DenseJacobian"]


class DenseJacobian(FieldJacobian):
    """A full matrix for every problem, by forward-mode differentiation of all columns at once, and Gaussian elimination."""

    def __init__(self) -> None:
        super().__init__()
        self._solver = DenseLU()

    def linearise(self, f: FlatField, t: Tensor, x: Tensor, with_rate: bool = False) -> Linearisation:
        size = x.shape[-1]
        n = size + with_rate
        units = torch.eye(n, size, dtype=x.dtype, device=x.device)
        directions = units.reshape(n, *[1] * (x.dim() - 1), size).expand(n, *x.shape)
        moves = torch.zeros(n, dtype=t.dtype, device=t.device)
        if with_rate:
            moves = torch.cat([moves[:-1], torch.ones_like(moves[:1])])
        moves = moves.reshape(n, *[1] * t.dim()).expand(n, *t.shape)

        def product(move: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
            linearised: tuple[Tensor, Tensor] = torch.func.jvp(f, (t, x), (move, direction))  # type: ignore[assignment]
            return linearised

        values, columns = torch.func.vmap(product)(moves, directions)
        return Linearisation(values[0], columns[-1] if with_rate else None, columns[:size].movedim(0, -1))

    def factorise(self, jacobian: Tensor, shift: Scalar) -> Factors:
        size = jacobian.shape[-1]
        if isinstance(shift, Tensor):
            shift = shift.to(jacobian.dtype)[..., None, None]
        return self._solver.factor(torch.eye(size, dtype=jacobian.dtype, device=jacobian.device) - shift * jacobian)

    def solve(self, f: FlatField, factors: Factors, b: Tensor) -> Tensor:
        return self._solver.solve_factored(factors, b)
