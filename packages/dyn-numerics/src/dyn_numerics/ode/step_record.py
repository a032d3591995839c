"""The accepted steps of a solve, written down while it runs without gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only, tree_structure, tree_unflatten

from dyn_numerics.ode.attempt import State
from dyn_numerics.ode.events.found import Found
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.own_rows import OwnRows
from dyn_numerics.ode.rows import stack
from dyn_numerics.transforms import any_lane

__all__ = ["RecordSteps", "StepRecord"]


@dataclass(frozen=True)
class StepRecord:
    """The accepted steps of every problem, in order; one with fewer than others ends with steps of no length.

    Those of a driver that branches are host numbers, in lists.

    Attributes:
        t0: Where each starts, `[n, *lead]`.
        t1: Where each ends.
        reached: How many of the clock's targets had been reached before.
        taken: Whether it is a step of that problem.
        n_whole: The steps before this one are steps of every problem.
        found: The events of each, as one `Found` of tensors `[n, *lead]`, or in a list; None without any.
    """

    t0: Any
    t1: Any
    reached: Any
    taken: Any
    n_whole: int
    found: Any = None

    def __len__(self) -> int:
        return len(self.t0)

    def holding(self, t: Tensor) -> list[bool]:
        """Whether some problem passes one of some times in each step.

        Args:
            t: Output times, `[T, *lead]`, of which those between the first and the last are asked for.
        """
        return _holding(self.t0, self.t1, self.taken, t)

    def events(self, i: int) -> Found | None:
        """The events of the steps number `i`, None if no problem has any."""
        if self.found is None:
            return None
        if isinstance(self.found, list):
            known: Found | None = self.found[i]
            return known
        found: Found = tree_map_only(Tensor, lambda column: column[i], self.found)
        return found if any_lane(torch.stack(found.happened)) else None  # type: ignore[arg-type]


class RecordSteps(Observer):
    """Writes down the accepted steps of a driver.

    Args:
        lead: Shape of the problems.
    """

    def __init__(self, lead: torch.Size) -> None:
        self._lead = lead
        self._rows: list[list[Any]] = []
        self._found: list[Found | None] = []

    def __len__(self) -> int:
        return len(self._rows)

    def holding(self, t: Tensor) -> list[bool]:
        """As `StepRecord.holding`, of all attempts."""
        t0, t1, _, moved = (list(column) for column in zip(*self._rows, strict=True)) if self._rows else ([],) * 4
        return _holding(t0, t1, moved, t)

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the ends of the attempt, whether it stands, and its events."""
        found = attempted.found
        row = [attempted.t0, attempted.t1 if found is None else found.whole, attempted.reached, attempted.moved]
        row = tree_map_only(Tensor, Tensor.detach, row)
        samples = attempted.samples
        if samples is not None:

            def put(part: Tensor) -> Tensor:
                return part.new_zeros(self._lead).index_copy(0, samples, part)

            row, found = [put(part) for part in row], tree_map_only(Tensor, put, found)
        self._rows.append(row)
        self._found.append(found)

    def result(self, state: State, until: Tensor | None = None) -> StepRecord:
        """The record of a solve that ended in this state.

        Args:
            state: The state.
            until: Where the last step that is wanted ends, `[*lead]`; all are wanted if not given.
        """
        last: Any = state.t
        if not isinstance(last, Tensor):
            return self._on_host()
        last = last.detach()
        nothing = [last, last, torch.zeros_like(last, dtype=torch.int64), torch.zeros_like(last, dtype=torch.bool)]
        t0, t1, reached, moved = (torch.stack(column)[1:] for column in zip(nothing, *self._rows, strict=True))
        if until is not None:
            # The first is kept: a problem repeats a step of its own where others go on.
            wanted = torch.where(t1 > t0, t0 < until, t0 > until) | (moved.cumsum(0) == 1)
            moved = moved & wanted
        own = OwnRows(moved)
        found = self._events(t1, own)
        # What remains has no length.
        t0, t1 = (torch.where(own.kept, own.of(ends), last) for ends in (t0, t1))
        return StepRecord(t0, t1, own.of(reached), own.kept, own.n_whole, found)

    def _on_host(self) -> StepRecord:
        """The record of a driver that branches."""
        kept = [(row[:3], found) for row, found in zip(self._rows, self._found, strict=True) if row[3]]
        t0, t1, reached = ([row[j] for row, _ in kept] for j in range(3))
        found = [found for _, found in kept]
        return StepRecord(t0, t1, reached, [True] * len(kept), len(kept), found)

    def _events(self, t1: Tensor, own: OwnRows) -> Found | None:
        """The events of the steps in their order, if there are any."""
        n_events = next((len(found.at) for found in self._found if found is not None), 0)
        if not n_events:
            return None
        rows = [
            Found.nothing(end, n_events) if found is None else found for end, found in zip(t1, self._found, strict=True)
        ]
        structure = tree_structure(rows[0])
        columns = zip(*(tree_leaves(row) for row in rows), strict=True)
        events: Found = tree_unflatten([own.of(torch.stack(column)) for column in columns], structure)
        return events


def _holding(t0: Any, t1: Any, taken: Any, t: Tensor) -> list[bool]:
    """Whether some problem passes one of the times `[T, *lead]` between the first and the last, in each step; one host read."""
    t = t.detach()
    n = len(t0)
    if len(t) <= 2 or not n:
        return [False] * n
    t0, t1 = (stack(column, t) if isinstance(column, list) else column for column in (t0, t1))
    taken = torch.stack([torch.as_tensor(one, device=t.device) for one in taken])
    direction = torch.where(t[-1] < t[0], -1.0, 1.0).to(t)
    ahead, starts, ends = ((times * direction).movedim(0, -1).contiguous() for times in (t[1:-1], t0, t1))
    passed = torch.searchsorted(ahead, ends, right=True) > torch.searchsorted(ahead, starts, right=True)
    flags: list[bool] = (passed & taken.movedim(0, -1)).reshape(-1, n).any(0).tolist()
    return flags
