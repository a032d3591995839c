"""How large a problem is, and how often it is solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LOTKA_VOLTERRA", "PERCEPTRON", "VAN_DER_POL", "Setup"]


@dataclass(frozen=True)
class Setup:
    """The settings of a problem that is solved with dopri5.

    Args:
        batch: Number of initial states.
        end: End of the solve, which starts at 0.
        tolerance: Relative and absolute tolerance.
        repeats: Rounds in which all solves are timed.
        seed: Seed of initial states, and weights if there are any.

    Example:
        >>> import torch
        >>> from dyn_bench.benchmarks.setup import Setup
        >>> setup = Setup(batch=4, end=2.0, tolerance=1e-6)
        >>> setup.initial_states(torch.float32).shape, setup.times(3).tolist()
        (torch.Size([4, 2]), [0.0, 1.0, 2.0])
    """

    batch: int
    end: float
    tolerance: float
    repeats: int = 15
    seed: int = 0

    def initial_states(self, dtype: torch.dtype) -> Tensor:
        """States `[batch, 2]` from a standard normal distribution."""
        return torch.randn(self.batch, 2, generator=torch.Generator().manual_seed(self.seed), dtype=dtype)

    def times(self, outputs: int) -> Tensor:
        """So many times from 0 to the end, evenly spaced, float64."""
        return torch.linspace(0, self.end, outputs, dtype=torch.float64)


VAN_DER_POL = Setup(batch=256, end=10.0, tolerance=1e-6)
"""Van der Pol's equation in the benchmarks."""

LOTKA_VOLTERRA = Setup(batch=1, end=10.0, tolerance=1e-6)
"""Lotka and Volterra's equations in the benchmarks."""

PERCEPTRON = Setup(batch=512, end=1.0, tolerance=1e-5)
"""The perceptron in the benchmarks."""
