"""The accepted steps of a solve inside of torch.compile, written into buffers in place."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.observer import AttemptedStep, Observer

__all__ = ["RecordEnds", "RecordStates"]


class RecordEnds(Observer):
    """Writes down where every accepted step ends.

    Args:
        capacity: Greatest number of attempts.
        t: Output times in the dtype of times, `[T, *lead]`.

    Attributes:
        ends: The first output time, then the end of each accepted step, `[capacity + 2, n]` for `n` problems; what follows
            the last one means nothing. A step starts where the one before ends.
    """

    def __init__(self, capacity: int, t: Tensor) -> None:
        n = t.shape[1:].numel()
        self.ends = torch.empty(capacity + 2, n, dtype=t.dtype, device=t.device)
        self.ends[0] = t[0].reshape(-1)
        self._all = torch.arange(n, device=t.device)

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the attempt in the place of the next accepted step: one that was rejected is overwritten."""
        self.ends.index_put_((attempted.index.reshape(-1) + 1, self._all), attempted.t1.reshape(-1))  # type: ignore[union-attr]


class RecordStates(RecordEnds):
    """Writes down where every accepted step ends, and the state that it starts from.

    Args:
        capacity: Greatest number of attempts.
        start: State at the start, `[*lead, N]`.
        t: Output times in the dtype of times, `[T, *lead]`.

    Attributes:
        states: The state at the start of each accepted step, `[capacity + 1, n, N]`.
    """

    def __init__(self, capacity: int, start: Tensor, t: Tensor) -> None:
        super().__init__(capacity, t)
        n, size = start.shape[:-1].numel(), start.shape[-1]
        self.states = torch.empty(capacity + 1, n, size, dtype=start.dtype, device=start.device)

    def observe(self, attempted: AttemptedStep) -> None:
        super().observe(attempted)
        at = (attempted.index.reshape(-1), self._all)
        self.states.index_put_(at, attempted.x0.reshape(-1, self.states.shape[-1]))
