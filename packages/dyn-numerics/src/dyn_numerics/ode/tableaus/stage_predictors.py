"""What the nodes of a Runge-Kutta method say of slopes to come: where the iteration of an implicit stage starts.

The slopes of a step are values of a smooth function of time, at its start and at the nodes of the stages. A polynomial
through those of the stages before predicts the slope of the next one; the trend of the step before adds the powers of
time that so few of them cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import torch

__all__ = ["predictor_rows", "trend_rows"]

HIGHEST_POWER = 3  # slopes of stages are too rough for more to help
SAME_TIME = Fraction(1, 10**6)


def predictor_rows(nodes: Sequence[Fraction]) -> list[list[float]]:
    """Weights that predict the slope of each stage.

    Args:
        nodes: Those of the stages, `c`.

    Returns:
        A row for each stage: the weights of the slope at the start and of the slopes of all stages, then those of the powers
        of time in the trend, time being in units of the step.
    """
    n_powers = len(trend_rows(nodes))
    rows = []
    for i, node in enumerate(nodes):
        known = {Fraction(0): 0}
        known.update((c, j + 1) for j, c in enumerate(nodes[:i]) if c != 0)  # the last of those at one time
        row = [Fraction(0)] * (len(nodes) + 1)
        lacking = [node**k for k in range(1, n_powers + 1)]
        for c, place in known.items():
            weight = prod(((node - other) / (c - other) for other in known if other != c), start=Fraction(1))
            row[place] = weight
            lacking = [rest - weight * c**k for k, rest in enumerate(lacking, start=1)]
        rows.append([float(weight) for weight in (*row, *lacking)])
    return rows


def trend_rows(nodes: Sequence[Fraction]) -> list[list[float]]:
    """Weights of the slope at the start and of those of all stages, less the last, in the trend.

    The trend is the polynomial in the time after the end of the step that is the last slope there, and next to the others.

    Args:
        nodes: Those of the stages, `c`, the last of them 1.

    Returns:
        A row for each power of time, from the first on, time being in units of the step.
    """
    places = {c - 1: place for place, c in enumerate([Fraction(0), *nodes]) if abs(c - 1) > SAME_TIME}
    powers = range(1, min(HIGHEST_POWER, len(places)) + 1)
    times = torch.tensor([[float(c) ** k for k in powers] for c in places], dtype=torch.float64, device="cpu")
    rows = []
    for weights in torch.linalg.pinv(times).tolist():
        row = [0.0] * (len(nodes) + 1)
        for place, weight in zip(places.values(), weights, strict=True):
            row[place] = weight
        rows.append(row)
    return rows
