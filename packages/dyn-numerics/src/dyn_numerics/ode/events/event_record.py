"""What happened in a solve: the times and states of its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode.events.found import Occurrence
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.own_rows import OwnRows
from dyn_numerics.ode.saver import Saved, Saver
from dyn_numerics.pytree_state import StateLayout

__all__ = ["EventRecord", "SaveEvents"]


@dataclass(frozen=True, eq=False)
class EventRecord:
    """The times at which one event happened, and the states there; all differentiable.

    Under `stepping="per_sample"` every sample has events of its own; `t` and `x` are filled up with NaN where a sample has
    fewer than others.

    Attributes:
        count: How often it happened, int64 `[]`, or `[batch]`.
        t: The times, `[n]`, or `[n, batch]`, float64 in the order of the solve.
        x: The states there, `[n, *x0.shape]` in the structure of `x0`; before the jump if the event has one.
        x_after: The states after the jump, as `x`; `x` itself for an event without one.

    Example:
        >>> import torch
        >>> from dyn_numerics import Event, odeint
        >>> half = Event(lambda t, x: x[..., 0] - 0.5)
        >>> x0 = torch.tensor([[1.0], [2.0], [0.1]])
        >>> sol = odeint(lambda t, x: -x, x0, [0.0, 10.0], events=half, stepping="per_sample", rtol=1e-6)
        >>> sol.events[0].count.tolist(), [round(t, 3) for t in sol.events[0].t[0].tolist()]
        ([1, 1, 0], [0.693, 1.386, nan])
    """

    count: Tensor
    t: Tensor
    x: Any
    x_after: Any

    @classmethod
    def of(cls, rows: Sequence[Occurrence], times: Tensor, states: Tensor, layout: StateLayout) -> EventRecord:
        """The record of one event.

        Args:
            rows: What happened, each for all problems.
            times: A tensor `[T, *lead]` like the times.
            states: A tensor `[*lead, N]` like the states.
            layout: Layout of the state.
        """
        lead = states.shape[:-1]
        happened = torch.zeros(0, *lead, dtype=torch.bool, device=states.device)
        t = times.new_zeros(0, *lead)
        x = after = states.new_zeros(0, *states.shape)
        if rows:
            happened, t, x, after = (torch.stack(column) for column in zip(*rows, strict=True))
        count = happened.sum(0)
        if len(rows):  # those of every problem first in its column
            own = OwnRows(happened)
            happened, (t, x, after) = own.kept, (own.of(column) for column in (t, x, after))
        t = torch.where(happened, t, torch.nan)
        x, after = (torch.where(happened.unsqueeze(-1), state, torch.nan) for state in (x, after))
        return cls(count, t, layout.unflatten(x), layout.unflatten(after))


class SaveEvents(Saver):
    """Keeps what happened beside what another saver keeps.

    Args:
        saver: The other one.
        n_events: Number of events that are watched for.
        t: Output times `[T, *lead]` in the dtype of times.
        layout: Layout of the state.
    """

    def __init__(self, saver: Saver, n_events: int, t: Tensor, layout: StateLayout) -> None:
        self._saver, self._like, self._layout = saver, t, layout
        self._rows: list[list[Occurrence]] = [[] for _ in range(n_events)]

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the events of one step."""
        self._saver.observe(attempted)
        for rows, occurrence in zip(self._rows, attempted.occurrences, strict=False):
            if occurrence is not None:
                rows.append(self._whole(occurrence, attempted.samples))

    def _whole(self, occurrence: Occurrence, samples: Tensor | None) -> Occurrence:
        """An event as one of all samples."""
        lead, like = self._like.shape[1:], self._like
        happened = torch.as_tensor(occurrence.happened, device=like.device)
        t = torch.as_tensor(occurrence.t, dtype=like.dtype, device=like.device)
        parts = [happened, t, occurrence.x, occurrence.after]
        if samples is not None:
            n = len(lead)
            parts = [part.new_zeros(*lead, *part.shape[n:]).index_copy(0, samples, part) for part in parts]
        return Occurrence(*parts)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """What the other saver kept, with the events."""
        return self._saver.result(x, success, after)._replace(
            events=tuple(EventRecord.of(rows, self._like, x, self._layout) for rows in self._rows)
        )
