"""What a method may know of the solve that it steps in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.per_sample import take_samples
from dyn_numerics.pytree_state import StateLayout

__all__ = ["SolveContext"]


@dataclass(frozen=True)
class SolveContext:
    """What a method may know of the solve that it steps in (see `Stepper.on`).

    Attributes:
        layout: How the user's state lies in the vectors `[*lead, N]` that the method steps.
        args: The field's extra arguments.
        norm: The norm in units of the tolerance, `norm.at(x, vector)` at a state, both `[*lead, N]`.
    """

    layout: StateLayout
    args: tuple[Any, ...]
    norm: ErrorNorm

    def take(self, samples: Tensor) -> SolveContext:
        """That of some of the samples, whose indices are `[m]`."""
        return replace(self, args=take_samples(self.args, samples), norm=self.norm.take(samples))
