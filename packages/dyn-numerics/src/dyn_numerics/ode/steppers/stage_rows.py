"""The coefficients of a diagonally implicit table, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import time_dtype

__all__ = ["StageRows"]


class StageRows:
    """The coefficients of a table by stage: of one stage, or of the stage that each problem is at, `[*lead]`.

    A row after the last stage is zero.

    Args:
        tableau: The table.
        other: The explicit one beside it, or None.

    Attributes:
        count: Number of stages.
        first: The first implicit stage.
        gamma: What is on the diagonal of the implicit ones.
    """

    def __init__(self, tableau: ButcherTableau, other: ButcherTableau | None = None) -> None:
        numbers = tableau.numbers
        self.count = len(numbers.diagonal)
        self.first = 0 if numbers.diagonal[0] else 1
        self.gamma = numbers.diagonal[-1]
        self._before_end = [*numbers.before_end, 0.0]
        self._rows = {
            "lower": self._lower(numbers.rows),
            "other": [] if other is None else self._lower(other.numbers.rows),
            "predictor": [*numbers.predictor, [0.0] * len(numbers.predictor[0])],
        }
        self._tensors: dict[str, Tensor] = {}

    def _lower(self, rows: list[list[float]]) -> list[list[float]]:
        count = self.count
        return [*(row[:i] + [0.0] * (count - i) for i, row in enumerate(rows[:count])), [0.0] * count]

    def on(self, dtype: torch.dtype, device: torch.device) -> StageRows:
        """The same for states in that dtype: as tensors too, since a loop within a compiled program can make none."""
        twin = StageRows.__new__(StageRows)
        twin.__dict__.update(self.__dict__)
        twin._tensors = {name: _tensor(rows, real_dtype(dtype), device) for name, rows in self._rows.items() if rows}
        twin._tensors["before_end"] = _tensor([self._before_end], time_dtype(device), device)[0]
        return twin

    def lower(self, stage: Any) -> Sequence[Scalar]:
        """The coefficients of the stages before it.

        Args:
            stage: A number, or one for each problem, `[*lead]`.
        """
        return self._row("lower", stage)

    def lower_of_other(self, stage: Any) -> Sequence[Scalar]:
        """Those of the explicit table."""
        return self._row("other", stage)

    def predictor(self, stage: Any) -> Sequence[Scalar]:
        """The weights that its slope is predicted with: `predictor_rows`."""
        return self._row("predictor", stage)

    def before_end(self, stage: Any) -> Scalar:
        """`1 - c`: it lies that share of the step before its end."""
        return _at(self._tensors["before_end"], stage) if isinstance(stage, Tensor) else self._before_end[stage]

    def _row(self, name: str, stage: Any) -> Sequence[Scalar]:
        if isinstance(stage, Tensor):
            return _at(self._tensors[name], stage).unbind(-1)
        return self._rows[name][stage]


def _tensor(rows: list[list[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    flat = torch.tensor([weight for row in rows for weight in row], dtype=dtype, device=device)
    return flat.reshape(len(rows), -1)


def _at(rows: Tensor, stage: Tensor) -> Tensor:
    """The rows of that number; a compiled program has no index `[]`."""
    found = rows.index_select(0, stage.reshape(-1))
    return found.unflatten(0, stage.shape) if stage.dim() else found.squeeze(0)  # type: ignore[no-untyped-call]
