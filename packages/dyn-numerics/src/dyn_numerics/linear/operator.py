"""The interface of a linear map that is known by its products with vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["LinearOperator"]


class LinearOperator(ABC):
    """A linear map of vectors `[*lead, N]`, one for every sample. Subclass it to plug in your own.

    A linear solver sees nothing else of a problem. Samples do not interact: what an operator makes of one vector has no
    influence on what it makes of another.

    Args:
        like: A vector such as it is applied to, `[*lead, N]`, real or complex; its values do not matter.

    Attributes:
        lead: Shape of the samples: `()` for one problem, `(batch,)` for one in every row.
        size: Length `N` of a vector.
        dtype: Dtype of the vectors.
        device: Device of the vectors.

    Raises:
        ValueError: If `like` has no dimension.

    Example:
        >>> import torch
        >>> from dyn_numerics import LinearOperator
        >>> class Reversal(LinearOperator):
        ...     def __call__(self, v):
        ...         return v.flip(-1)
        ...
        ...     def adjoint(self):
        ...         return self
        >>> Reversal(torch.ones(2)).matrix()
        tensor([[0., 1.],
                [1., 0.]])
    """

    def __init__(self, like: Tensor) -> None:
        if not like.dim():
            raise ValueError("like: got a tensor of shape [], expected vectors [*lead, N]; try like.reshape(1)")
        self.lead = tuple(like.shape[:-1])
        self.size = like.shape[-1]
        self.dtype = like.dtype
        self.device = like.device

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lead={list(self.lead)}, size={self.size}, dtype={self.dtype})"

    @abstractmethod
    def __call__(self, v: Tensor) -> Tensor:
        """The product with a vector, both `[*lead, N]`."""

    @abstractmethod
    def adjoint(self) -> LinearOperator:
        """The conjugate transpose."""

    def matrix(self) -> Tensor:
        """The matrix itself, `[*lead, N, N]`: one call of the operator, for all unit vectors at once."""
        # With out_dims=-1 torch returns garbage where a product is the same for all vectors, as of the matrix 0.
        columns: Tensor = torch.func.vmap(self)(self.units())
        return columns.movedim(0, -1)

    def units(self) -> Tensor:
        """The unit vectors of every sample, `[N, *lead, N]`."""
        units = torch.eye(self.size, dtype=self.dtype, device=self.device)
        return units.reshape(self.size, *(1 for _ in self.lead), self.size).expand(self.size, *self.lead, self.size)
