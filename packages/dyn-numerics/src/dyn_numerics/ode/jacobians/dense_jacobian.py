"""The Jacobian of a field as a full matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.linear.dense_lu import DenseLU, Factors, WrittenOutFactors
from dyn_numerics.ode.jacobians.assembled_jacobian import AssembledJacobian
from dyn_numerics.ode.jacobians.field_jacobian import Linearisation, Solved
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField

__all__ = ["DenseJacobian"]


class DenseJacobian(AssembledJacobian):
    """A full matrix for every problem, and Gaussian elimination.

    All rows are found at once, by one call of the field and one pass back through it under `torch.func.vmap`; columns, by
    forward mode, where the state is complex, whose field must be holomorphic. Memory is `[*lead, N, N]`: see
    `BandedJacobian`, `BlockDiagonalJacobian` and `KrylovJacobian` for large states.

    Args:
        jac: The user's Jacobian `jac(t, x, *args)`, for a state that is a single tensor: `[*shape, *shape]` for a state
            `[*shape]`, or with `stepping="per_sample"` `[batch, *shape, *shape]` for a state `[batch, *shape]`; in its dtype,
            derivatives of outputs first, then of inputs, per time unit. Where it is nearly right, a diagonally implicit method
            converges to the same states, but its gradients are as exact as `jac` is.
        check: Whether every Jacobian is compared with the field: its product with one vector, which comes along with the
            call of the field, and one host read. Inside of `torch.compile` and `torch.func`, where values cannot be read,
            nothing is compared.

    Raises:
        TypeError: If `jac` cannot be called; in a solve, if the state is a pytree and there is a `jac`, or `jac` returns
            another dtype.
        ValueError: In a solve, if `jac` returns another shape, or disagrees with the field where that is checked.

    Example:
        >>> import torch
        >>> from dyn_numerics import DenseJacobian
        >>> f = lambda t, x: torch.stack([x[1], -100 * x[0] * x[1]])
        >>> jacobian = DenseJacobian()
        >>> near = jacobian.linearise(f, torch.tensor(0.0), torch.tensor([1.0, 2.0]))
        >>> near.jacobian
        tensor([[   0.,    1.],
                [-200., -100.]])
        >>> factors = jacobian.factorise(near.jacobian, 0.1)
        >>> jacobian.solve(f, factors, torch.tensor([1.0, 0.0])).x
        tensor([ 0.8462, -1.5385])
    """

    def linearise(self, f: FlatField, t: Tensor, x: Tensor, with_rate: bool = False) -> Linearisation:
        if self.jac is not None or self.check or x.is_complex():
            return super().linearise(f, t, x, with_rate)
        # In Python forward mode takes several times as long.
        slope, pull = torch.func.vjp(f, t, x) if with_rate else torch.func.vjp(lambda x: f(t, x), x)  # type: ignore[misc]
        size = x.shape[-1]
        units = self.directions(x).reshape(size, *[1] * (x.dim() - 1), size).expand(size, *x.shape)
        *rates, rows = torch.func.vmap(pull)(units)
        return Linearisation(slope, rates[0].movedim(0, -1) if rates else None, rows.movedim(0, -2))

    def directions(self, x: Tensor) -> Tensor:
        return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)

    def assemble(self, products: Tensor) -> Tensor:
        return products.movedim(0, -1)

    def form(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        return (*shape, *shape), "derivatives of outputs by inputs"

    def arrange(self, found: Tensor, x: Tensor) -> Tensor:
        return found.reshape(*x.shape, x.shape[-1])

    def product(self, jacobian: Tensor, v: Tensor) -> Tensor:
        return (jacobian @ v.unsqueeze(-1)).squeeze(-1)

    def factorise(self, jacobian: Tensor, shift: Scalar) -> Factors | WrittenOutFactors:
        return DenseLU().factor(newton_matrix(jacobian, shift))

    def solve(self, f: FlatField, factors: Factors | WrittenOutFactors, b: Tensor) -> Solved:
        return Solved(DenseLU().solve_factored(factors, b))


def newton_matrix(jacobian: Tensor, shift: Scalar) -> Tensor:
    """`I - shift J` for matrices `[*lead, ..., N, N]` and a number or `[*lead]`."""
    if isinstance(shift, Tensor):
        shift = shift.to(jacobian.dtype).reshape(*shift.shape, *[1] * (jacobian.dim() - shift.dim()))
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return identity - shift * jacobian
