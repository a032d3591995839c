"""A linear map that is given by its matrix."""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.linear.operator import LinearOperator

__all__ = ["MatrixOperator"]


class MatrixOperator(LinearOperator):
    """The linear map of a matrix.

    Args:
        matrix: `[*lead, N, N]`, real or complex, one for every sample.

    Raises:
        ValueError: If `matrix` is not square.

    Example:
        >>> import torch
        >>> from dyn_numerics import MatrixOperator
        >>> operator = MatrixOperator(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]))
        >>> operator(torch.tensor([[1.0, 10.0]]))
        tensor([[20.,  1.]])
        >>> operator.adjoint()(torch.tensor([[1.0, 10.0]]))
        tensor([[10.,  2.]])
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(f"matrix: got shape {list(matrix.shape)}, expected square matrices [*lead, N, N]")
        super().__init__(matrix[..., 0])
        self._matrix = matrix

    def __call__(self, v: Tensor) -> Tensor:
        return (self._matrix @ v.unsqueeze(-1)).squeeze(-1)

    def adjoint(self) -> MatrixOperator:
        return MatrixOperator(self._matrix.mH)

    def matrix(self) -> Tensor:
        return self._matrix
