"""The output times that lie within a step."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

import torch
from torch import Tensor

from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.scalar import Flag, Scalar
from dyn_numerics.ode.search import count_below
from dyn_numerics.ode.times import Clock

__all__ = ["OutputTimes"]


class OutputTimes:
    """Output times between start and end of a solve, looked up by the steps that hold them.

    Args:
        clock: The clock.
        t: Output times `[T, *lead]` in the dtype of times.
    """

    def __init__(self, clock: Clock, t: Tensor) -> None:
        self._clock, self._count = clock, len(t)
        self._ahead: Tensor | None = None  # output times in the order of the solve, and infinity, [*lead, T + 1]
        if isinstance(clock.direction, Tensor) and len(t) > 2:
            ahead = (t.detach() * clock.direction).movedim(0, -1)
            ahead = torch.where(ahead < ahead[..., -1:], ahead, inf)  # at the end it is the state itself
            self._ahead = torch.cat([ahead, torch.full_like(ahead[..., :1], inf)], dim=-1)

    def __bool__(self) -> bool:
        return self._count > 2

    def first_in(self, attempted: AttemptedStep) -> int | Tensor:
        """Index of the first output behind the start of a step, an integer or `[*lead]`."""
        t0 = attempted.t0
        if self._ahead is None:
            times, direction = self._clock.times, self._clock.direction
            return bisect_right(times, direction * t0, key=lambda t: direction * t)
        ahead, direction = self._of(attempted)
        return count_below(ahead, (t0 * direction).unsqueeze(-1), including=True).squeeze(-1)  # type: ignore[union-attr]

    def holds(self, attempted: AttemptedStep, output: int | Tensor) -> Flag:
        """Whether an output behind the start of a step lies within it."""
        t1 = attempted.t1
        if self._ahead is None:
            times, direction = self._clock.times, self._clock.direction
            return output < len(times) - 1 and direction * times[output] <= direction * t1  # type: ignore[index]
        ahead, direction = self._of(attempted)
        return ahead.gather(-1, output.unsqueeze(-1)).squeeze(-1) <= t1 * direction  # type: ignore[union-attr]

    def _of(self, attempted: AttemptedStep) -> tuple[Tensor, Scalar]:
        """The times ahead of the samples that are still in the batch, and their directions."""
        samples = attempted.samples
        ahead: Tensor = self._ahead if samples is None else self._ahead[samples]  # type: ignore[assignment, index]
        return ahead, attempted.problem.clock.direction
