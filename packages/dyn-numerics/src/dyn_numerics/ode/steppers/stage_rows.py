"""The coefficients of a diagonally implicit table, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import time_dtype

__all__ = ["StageRows"]


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
        lower = [*(row[:i] + [0.0] * (s - i) for i, row in enumerate(numbers.rows[:s])), [0.0] * s]
        self._before_end = [*numbers.before_end, 0.0]
        self._rows = {"lower": lower, "predictor": [*numbers.predictor, [0.0] * len(numbers.predictor[0])]}
        self._tensors: dict[str, Tensor] = {}

    def on(self, x: Tensor) -> StageRows:
        """Those for states like `x`, also as tensors: a loop within a compiled program makes none."""
        twin = copy(self)
        dtype = real_dtype(x.dtype)
        twin._tensors = {name: _tensor(rows, dtype, x.device) for name, rows in self._rows.items()}
        twin._times = _tensor([self._before_end], time_dtype(x.device), x.device)[0]
        return twin

    def lower(self, stage: Any) -> Sequence[Scalar]:
        """The coefficients of the stages before it.

        Args:
            stage: A number, or one for each problem, `[*lead]`.
        """
        return self._row("lower", stage)

    def predictor(self, stage: Any) -> Sequence[Scalar]:
        """The weights that its slope follows from: `predictor_rows`."""
        return self._row("predictor", stage)

    def before_end(self, stage: Any) -> Scalar:
        """`1 - c`: it lies that share of the step before its end."""
        return self._times[stage] if isinstance(stage, Tensor) else self._before_end[stage]

    def _row(self, name: str, stage: Any) -> Sequence[Scalar]:
        if isinstance(stage, Tensor):
            return self._tensors[name][stage].unbind(-1)
        return self._rows[name][stage]


def _tensor(rows: list[list[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    flat = torch.tensor([weight for row in rows for weight in row], dtype=dtype, device=device)
    return flat.reshape(len(rows), -1)
