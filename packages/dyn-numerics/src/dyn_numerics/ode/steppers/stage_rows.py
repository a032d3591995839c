"""The coefficients of a diagonally implicit table, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
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
        s = tableau.stages
        self.count = s
        self.first = 0 if tableau.diagonal[0] else 1
        self.gamma = float(tableau.diagonal[-1])
        lower = [[float(weight) for weight in row[:i]] + [0.0] * (s - i) for i, row in enumerate(tableau.a)]
        self._lower = [*lower, [0.0] * s]
        self._before_end = [*(float(1 - c) for c in tableau.c), 0.0]
        self._predictor = [*_predictors(tableau.c), [0.0] * (s + 1)]

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


def _predictors(nodes: Sequence[Fraction]) -> Rows:
    """Weights of the slopes at the start and at the stages before each, whose polynomial is evaluated at its node."""
    rows = []
    for i, node in enumerate(nodes):
        known = {Fraction(0): 0}
        known.update((c, j + 1) for j, c in enumerate(nodes[:i]) if c != 0)  # the last of those at one time
        row = [0.0] * (len(nodes) + 1)
        for c, place in known.items():
            weight = Fraction(1)
            for other in known:
                if other != c:
                    weight *= (node - other) / (c - other)
            row[place] = float(weight)
        rows.append(row)
    return rows
