"""The coefficients of a diagonally implicit table, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import time_dtype

__all__ = ["StageRows"]

Rows = list[list[float]]


class StageRows:
    """The coefficients of a table by stage: of one stage, as numbers, or of the stage of each problem, `[*lead]`.

    A row after the last stage is zero.

    Args:
        tableau: The table.

    Attributes:
        count: Number of stages.
        first: The first implicit stage.
        gamma: What is on the diagonal of the others.
    """

    def __init__(self, tableau: ButcherTableau) -> None:
        numbers = tableau.numbers
        s = len(numbers.before_end)
        self.count = s
        self.first = 0 if numbers.diagonal[0] else 1
        self.gamma = numbers.diagonal[-1]
        self._lower = [*(row[:i] + [0.0] * (s - i) for i, row in enumerate(numbers.rows[:s])), [0.0] * s]
        self._before_end = [*numbers.before_end, 0.0]
        self._predictor = [*numbers.predictor, [0.0] * len(numbers.predictor[0])]

    def lower(self, stage: Any, like: Tensor) -> Sequence[Scalar]:
        """The coefficients of the stages before it.

        Args:
            stage: A number, or one for each problem, `[*lead]`.
            like: A state.
        """
        return _rows(self._lower, stage, like)

    def predictor(self, stage: Any, like: Tensor) -> Sequence[Scalar]:
        """The weights with which its rise follows from `dt f` at the start and from the rises of stages before it."""
        return _rows(self._predictor, stage, like)

    def before_end(self, stage: Any) -> Scalar:
        """`1 - c`: it lies that share of the step before its end."""
        if not isinstance(stage, Tensor):
            return self._before_end[stage]
        values = torch.tensor(self._before_end, dtype=time_dtype(stage.device), device=stage.device)
        return values[stage]


def _rows(rows: Rows, stage: Any, like: Tensor) -> Sequence[Scalar]:
    if not isinstance(stage, Tensor):
        return rows[stage]
    size = len(rows[0])
    flat = torch.tensor([weight for row in rows for weight in row], dtype=like.dtype, device=like.device)
    return flat.reshape(-1, size)[stage].unbind(-1)

