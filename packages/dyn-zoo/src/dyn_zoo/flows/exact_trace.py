"""A vector field together with the trace of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from dyn_models.fields.signature import takes_time

__all__ = ["ExactTrace"]


class ExactTrace(nn.Module):
    """The dynamics of a state and its log-density: `dx/dt = f`, `d(log p)/dt = -tr(df/dx)`.

    The trace costs one vector-Jacobian product per dimension, taken together. The field must treat the rows of a batch
    independently (no batch normalisation), or the trace would mix them. It is differentiated by `torch.func`: one that
    differentiates something itself does so with `torch.func.grad`, not with `requires_grad_()`.

    Args:
        vector_field: A module or function `f(t, x)` or `f(x)` on `x` `[batch, dim]`.

    References:
        R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018, theorem 1.
    """

    def __init__(self, vector_field: Callable[..., Any]) -> None:
        super().__init__()
        self._takes_time = takes_time(vector_field)
        self.vector_field = vector_field

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Evaluates both.

        Args:
            t: Time, `[]`.
            state: Points `[batch, dim]` and log-densities `[batch]`.

        Returns:
            The slopes, of the same shapes.

        Raises:
            ValueError: If the field returns another shape than that of the points.
        """
        x, _ = state
        dim = x.shape[-1]
        slope, pull_back, *_ = vjp(lambda x: self.slope(t, x), x)
        if slope.shape != x.shape:
            raise ValueError(
                f"vector_field: returned shape {list(slope.shape)}, expected {list(x.shape)} as the points"
            )
        basis = torch.eye(dim, dtype=x.dtype, device=x.device)[:, None, :].expand(dim, *x.shape)
        (rows,) = vmap(pull_back)(basis)  # [dim, batch, dim], row i of every Jacobian
        return slope, -torch.einsum("ibi->b", rows)

    def slope(self, t: Tensor, x: Tensor) -> Tensor:
        """The slope of the points alone."""
        slope: Tensor = self.vector_field(t, x) if self._takes_time else self.vector_field(x)
        return slope
