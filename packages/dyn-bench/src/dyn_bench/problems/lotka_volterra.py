"""Lotka and Volterra's predators and their prey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["LOTKA_VOLTERRA_TO_10", "LotkaVolterra"]


@dataclass(frozen=True)
class LotkaVolterra:
    """`x' = x (growth - predation * y)`, `y' = y (gain * x - death)` for prey `x` and predators `y`.

    Args:
        growth: Growth rate of the prey, per unit of time.
        predation: Rate at which a predator takes prey.
        gain: Rate at which predators grow by it.
        death: Death rate of the predators.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.lotka_volterra import LotkaVolterra
        >>> LotkaVolterra()(torch.tensor(0.0), torch.tensor([[3.0, 1.5]]))
        tensor([[0., 0.]])

    References:
        - A. J. Lotka: Elements of Physical Biology (1925).
        - V. Volterra: Fluctuations in the abundance of a species considered mathematically, Nature 118 (1926).
    """

    growth: float = 1.5
    predation: float = 1.0
    gain: float = 1.0
    death: float = 3.0

    def components(self, prey: Any, predators: Any) -> list[Any]:
        """The slopes of prey and predators, in arithmetic that any array library does."""
        return [prey * (self.growth - self.predation * predators), predators * (self.gain * prey - self.death)]

    def invariant(self, x: Tensor) -> Tensor:
        """What stays the same along a solution, `[...]`, of states `[..., 2]`."""
        prey, predators = x.unbind(-1)
        ups = self.gain * prey + self.predation * predators
        return ups - self.death * prey.log() - self.growth * predators.log()

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[..., 2]`."""
        return torch.stack(self.components(x[..., 0], x[..., 1]), -1)


LOTKA_VOLTERRA_TO_10 = ReferenceProblem(
    name="Lotka-Volterra",
    field=LotkaVolterra(),
    start=(1.0, 1.0),
    end=10.0,
    last=(1.0263447675750893, 0.9096910781360416),
    source="extrapolation in 34 digits, and Taylor series in 60",
)
"""Nearly three turns from `(1, 1)`."""
