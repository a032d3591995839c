"""The Jacobian of a function, known by its products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dyn_numerics.linear.function_operator import FunctionOperator
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.linear.pullback import pullback

__all__ = ["JacobianOperator"]


class JacobianOperator(LinearOperator):
    """The Jacobian `J` of a function at a point, by forward-mode differentiation; adjoint products by reverse mode.

    Every product calls `f` once, and so does the whole matrix. What `f` is worth comes along, for nobody to call it again.

    Args:
        f: Maps `[*lead, N]` to `[*lead, N]`, each sample by itself; holomorphic if complex.
        x: Where it is differentiated, `[*lead, N]`.

    Example:
        >>> import torch
        >>> from dyn_numerics import JacobianOperator
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> jacobian = JacobianOperator(lambda x: x * x.flip(-1), x)
        >>> jacobian(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[2., 2.],
                [3., 3.]])
        >>> value, matrix = jacobian.value_and_matrix()
        >>> matrix[0]
        tensor([[2., 1.],
                [2., 1.]])
    """

    def __init__(self, f: Callable[[Tensor], Tensor], x: Tensor) -> None:
        super().__init__(x)
        self._f = f
        self._x = x

    def __call__(self, v: Tensor) -> Tensor:
        return self.value_and_product(v)[1]

    def value_and_product(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """`f(x)` and `J v`, both `[*lead, N]`, from one call of `f`."""
        linearised: tuple[Tensor, Tensor] = torch.func.jvp(self._f, (self._x,), (v,))  # type: ignore[assignment]
        return linearised

    def matrix(self) -> Tensor:
        return self.value_and_matrix()[1]

    def value_and_matrix(self) -> tuple[Tensor, Tensor]:
        """`f(x)`, `[*lead, N]`, and `J`, `[*lead, N, N]`, from one call of `f`."""
        values, columns = torch.func.vmap(self.value_and_product)(self.units())
        return values[0], columns.movedim(0, -1)

    def adjoint(self) -> FunctionOperator:
        return FunctionOperator(pullback(self._f, self._x), self._x, adjoint=self)
