"""The slopes of a Runge-Kutta step and their weighted sums, in the two ways that are fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar, over_state

__all__ = ["SlopeList", "SlopeMatrix", "Slopes", "Workspaces"]


MOST_KEPT = 2**18
"""The most numbers in a workspace that is kept."""


class Slopes(Protocol):
    """The slopes of a step, each `[*lead, N]`, in the order of its stages.

    They are valid as long as somebody holds this object.
    """

    def append(self, slope: Tensor) -> None:
        """Adds the next slope."""

    def after(self, row: int) -> Tensor:
        """`x + dt * sum_j w_j k_j` with a row of the table; the slopes that the row weighs are there."""

    def weighted(self, row: int) -> Tensor:
        """`dt * sum_j w_j k_j` with a row of the table over all slopes."""

    def weighted_with(self, rows: Any) -> list[Tensor]:
        """`dt * sum_j w_j k_j` over all slopes, for each row of other weights; of the kind that the table is."""

    def __getitem__(self, stage: int) -> Tensor: ...

    def __iter__(self) -> Iterator[Tensor]: ...


class Workspace:
    """Memory for the slopes of one step, and views into it.

    Args:
        stages: Number of slopes.
        x: The state, `[*lead, N]`.
    """

    def __init__(self, stages: int, x: Tensor) -> None:
        self.matrix = torch.empty(stages, x.numel(), dtype=x.dtype, device=x.device)
        self.slopes = [row.view(x.shape) for row in self.matrix.unbind()]
        self.first = [self.matrix[:count].t() for count in range(stages + 1)]  # [N, count]


class Workspaces:
    """Workspaces that were used before, handed out again when nobody holds the slopes in them any more."""

    def __init__(self) -> None:
        self._free: tuple[Any, list[Workspace]] = (None, [])  # a kind of state, and those for it

    def take(self, stages: int, x: Tensor) -> tuple[Any, Workspace]:
        """One for states like `x`, and the key to give it back with."""
        key = (stages, x.shape, x.dtype, x.device)
        if self._free[0] != key:
            self._free = key, []  # those for other states are not kept
        of, free = self._free
        if of == key and free:
            return key, free.pop()
        with torch.inference_mode(False), torch.no_grad():
            return key, Workspace(stages, x)

    def give_back(self, key: Any, workspace: Workspace) -> None:
        """Takes one back, unless making a new one is nothing beside the work on its state."""
        of, free = self._free
        if of == key and workspace.matrix.numel() <= MOST_KEPT:
            free.append(workspace)


class SlopeMatrix:
    """Slopes as the rows of one matrix; a sum is one matrix-vector product. For whom nobody differentiates or compiles.

    Args:
        rows: The rows of the table in one vector, each as long as what it weighs.
        lengths: Their lengths.
        stages: Number of slopes.
        dt: Step size, a host number or `[*lead]`.
        x: The state, `[*lead, N]`.
        workspaces: Where its memory comes from.
    """

    def __init__(
        self, rows: Tensor, lengths: Sequence[int], stages: int, dt: Scalar, x: Tensor, workspaces: Workspaces
    ) -> None:
        self._dt, self._x = dt, x
        self._flat = x if x.dim() == 1 else x.reshape(-1)
        # A host number goes into the weights, one step size for each problem into its slopes.
        self._scale = over_state(dt, x) if isinstance(dt, Tensor) else None
        self._rows = torch.split_with_sizes(rows if self._scale is not None else rows * dt, lengths)
        self._workspaces = workspaces
        self._key, self._workspace = workspaces.take(stages, x)
        self._slopes: list[Tensor] = []

    def __del__(self) -> None:
        self._workspaces.give_back(self._key, self._workspace)

    def append(self, slope: Tensor) -> None:
        into = self._workspace.slopes[len(self._slopes)]
        if self._scale is None:
            self._slopes.append(into.copy_(slope))
        else:
            torch.mul(slope, self._scale, out=into)
            self._slopes.append(slope)

    def after(self, row: int) -> Tensor:
        weights = self._rows[row]
        found = torch.addmv(self._flat, self._workspace.first[len(weights)], weights)
        return found if self._flat is self._x else found.view_as(self._x)

    def weighted(self, row: int) -> Tensor:
        return self._sum(self._rows[row])

    def weighted_with(self, rows: Tensor) -> list[Tensor]:
        if self._scale is None:
            return list(((rows * self._dt) @ self._workspace.matrix).unbind())
        # Not one product of matrices, whose rounding depends on where an element lies.
        return [self._sum(row) for row in rows.unbind()]

    def _sum(self, weights: Tensor) -> Tensor:
        return torch.mv(self._workspace.first[-1], weights).view_as(self._x)

    def __getitem__(self, stage: int) -> Tensor:
        return self._slopes[stage]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._slopes)


class SlopeList:
    """Slopes one by one, summed element by element: differentiable, and fused when compiled.

    Args:
        rows: Rows of the table: host numbers, or a tensor `[rows, s]`.
        dt: Step size, a host number or `[*lead]`.
        x: The state, `[*lead, N]`.
    """

    def __init__(self, rows: Sequence[Sequence[float]] | Tensor, dt: Scalar, x: Tensor) -> None:
        self._rows, self._dt, self._x = rows, dt, x
        self._slopes: list[Tensor] = []
        self._rises: list[Tensor] = []

    def append(self, slope: Tensor) -> None:
        self._slopes.append(slope)
        # A host number goes into the weights below and costs no pass over the state.
        self._rises.append(slope * over_state(self._dt, slope) if isinstance(self._dt, Tensor) else slope)

    def after(self, row: int) -> Tensor:
        return self._sum(self._rows[row], self._x)

    def weighted(self, row: int) -> Tensor:
        return self._sum(self._rows[row], None)

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
