"""A linear map that is given by a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.linear.pullback import pullback

__all__ = ["FunctionOperator"]


class FunctionOperator(LinearOperator):
    """The linear map that a function computes.

    Args:
        function: Maps vectors `[*lead, N]` to such, linearly and each sample by itself.
        like: A vector such as it is applied to, `[*lead, N]`, real or complex; its values do not matter.
        adjoint: The function of the conjugate transpose. When None it is found by reverse-mode differentiation of
            `function`, whose operations must then have derivatives.

    Raises:
        ValueError: If a product has another shape or dtype than the vector.

    Example:
        >>> import torch
        >>> from dyn_numerics import FunctionOperator
        >>> differences = FunctionOperator(lambda v: v - v.roll(1, -1), like=torch.ones(3))
        >>> differences(torch.tensor([1.0, 3.0, 9.0]))
        tensor([-8.,  2.,  6.])
        >>> differences.adjoint().matrix()
        tensor([[ 1., -1.,  0.],
                [ 0.,  1., -1.],
                [-1.,  0.,  1.]])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        like: Tensor,
        adjoint: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(like)
        self._function = function
        self._adjoint = adjoint

    def __call__(self, v: Tensor) -> Tensor:
        product = self._function(v)
        if product.shape != v.shape or product.dtype != v.dtype:
            raise ValueError(
                f"function: got a product of shape {list(product.shape)} in {product.dtype}, "
                f"expected {list(v.shape)} in {v.dtype}, as the vector has it"
            )
        return product

    def adjoint(self) -> FunctionOperator:
        like = torch.zeros(*self.lead, self.size, dtype=self.dtype, device=self.device)
        adjoint = pullback(self._function, like) if self._adjoint is None else self._adjoint
        return FunctionOperator(adjoint, like, adjoint=self._function)
