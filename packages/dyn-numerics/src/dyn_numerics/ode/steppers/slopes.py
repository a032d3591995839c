"""The slopes of a Runge-Kutta step and their weighted sums, in the two ways that are fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar, over_state

__all__ = ["SlopeList", "SlopeMatrix", "Slopes"]


class Slopes(Protocol):
    """The slopes of a step, each `[*lead, N]`, in the order of its stages."""

    def append(self, slope: Tensor) -> None:
        """Adds the next slope."""

    def weighted(self, row: int, onto: Tensor | None) -> Tensor:
        """`onto + dt * sum_j w_j k_j` with a row of the table, over the slopes so far; without `onto` the sum alone."""

    def weighted_with(self, rows: Any) -> list[Tensor]:
        """`dt * sum_j w_j k_j` over all slopes, for each row of other weights; of the kind that the table is."""

    def __getitem__(self, stage: int) -> Tensor: ...

    def __iter__(self) -> Iterator[Tensor]: ...


class SlopeMatrix:
    """Slopes as the rows of one matrix; a sum is one matrix-vector product. For whom nobody differentiates or compiles.

    Args:
        rows: Rows of the table, `[rows, s]`; row i weighs the slopes that it may.
        dt: Step size, a host number or `[*lead]`.
        x: The state, `[*lead, N]`.
    """

    def __init__(self, rows: Tensor, dt: Scalar, x: Tensor) -> None:
        self._dt = dt
        self._scale = over_state(dt, x)
        # A host number goes into the weights, one step size for each problem into its slopes.
        self._rows = rows.unbind() if isinstance(dt, Tensor) else (rows * dt).unbind()
        self._matrix = x.new_empty(rows.shape[1], x.numel())
        self._columns = self._matrix.t()
        self._shape = x.shape
        self._slopes: list[Tensor] = []

    def append(self, slope: Tensor) -> None:
        into = self._matrix[len(self._slopes)]
        if isinstance(self._scale, Tensor):
            torch.mul(slope, self._scale, out=into.view(self._shape))
            self._slopes.append(slope)
        else:
            self._slopes.append(into.copy_(slope))

    def weighted(self, row: int, onto: Tensor | None) -> Tensor:
        count = len(self._slopes)
        columns, weights = self._columns[:, :count], self._rows[row][:count]
        if onto is None:
            return torch.mv(columns, weights).view(self._shape)
        if onto.dim() == 1:
            return torch.addmv(onto, columns, weights)
        return torch.addmv(onto.reshape(-1), columns, weights).view(self._shape)

    def weighted_with(self, rows: Tensor) -> list[Tensor]:
        if not isinstance(self._dt, Tensor):
            return list(((rows * self._dt) @ self._matrix).unbind())
        # Not one product of matrices, whose rounding depends on where an element lies.
        return [torch.mv(self._columns, row).view(self._shape) for row in rows.unbind()]

    def __getitem__(self, stage: int) -> Tensor:
        return self._slopes[stage]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._slopes)


class SlopeList:
    """Slopes one by one, summed element by element: differentiable, and fused when compiled.

    Args:
        rows: Rows of the table: host numbers, or a tensor `[rows, s]`.
        dt: Step size, a host number or `[*lead]`.
    """

    def __init__(self, rows: Sequence[Sequence[float]] | Tensor, dt: Scalar) -> None:
        self._rows, self._dt = rows, dt
        self._slopes: list[Tensor] = []
        self._rises: list[Tensor] = []

    def append(self, slope: Tensor) -> None:
        self._slopes.append(slope)
        # A host number goes into the weights below and costs no pass over the state.
        self._rises.append(slope * over_state(self._dt, slope) if isinstance(self._dt, Tensor) else slope)

    def weighted(self, row: int, onto: Tensor | None) -> Tensor:
        return self._sum(self._rows[row], onto)

    def weighted_with(self, rows: Sequence[Sequence[float]]) -> list[Tensor]:
        return [self._sum(row, None) for row in rows]

    def _sum(self, weights: Sequence[float] | Tensor, total: Tensor | None) -> Tensor:
        step = 1.0 if isinstance(self._dt, Tensor) else self._dt
        for weight, rise in zip(weights, self._rises, strict=False):
            if isinstance(weight, Tensor):
                term = (weight * step) * rise
                total = term if total is None else total + term
            elif weight != 0:
                total = rise * (weight * step) if total is None else torch.add(total, rise, alpha=weight * step)
        return torch.zeros_like(self._slopes[0]) if total is None else total

    def __getitem__(self, stage: int) -> Tensor:
        return self._slopes[stage]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._slopes)
