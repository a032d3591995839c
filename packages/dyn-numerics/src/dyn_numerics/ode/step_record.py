"""The accepted steps of a solve, and their repetition: what gradients are of.

A loop that selects computes rejected attempts and problems that have ended along with the rest. It runs without
gradient and writes the accepted steps down; repeating these, and nothing else, gives the solution with its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only, tree_structure, tree_unflatten

from dyn_numerics.ode.attempt import Problem, State, across
from dyn_numerics.ode.events.found import Found
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.scalar import where
from dyn_numerics.ode.times import state_time
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane, under_transform

__all__ = ["RecordSteps", "StepRecord", "replay"]


@dataclass(frozen=True)
class StepRecord:
    """The accepted steps of every problem, in order; one with fewer than others ends with steps of no length.

    Attributes:
        t0: Where each starts, `[n, *lead]`.
        t1: Where each ends.
        reached: How many of the clock's targets had been reached before.
        taken: Whether it is a step of that problem.
        n_whole: The steps before this one are steps of every problem.
        found: The events of each, as one `Found` of tensors `[n, *lead]`; None without any.
    """

    t0: Tensor
    t1: Tensor
    reached: Tensor
    taken: Tensor
    n_whole: int
    found: Found | None = None

    def __len__(self) -> int:
        return len(self.t0)

    def events(self, i: int) -> Found | None:
        """The events of the steps number `i`, None if no problem has any."""
        if self.found is None:
            return None
        found: Found = tree_map_only(Tensor, lambda column: column[i], self.found)
        return found if any_lane(torch.stack(found.happened)) else None  # type: ignore[arg-type]


class RecordSteps(Observer):
    """Writes down the accepted steps of a driver that selects.

    Args:
        lead: Shape of the problems.
        differentiable: Whether the ends of the steps keep their gradients, those of step sizes that are learned.
    """

    def __init__(self, lead: torch.Size, differentiable: bool = False) -> None:
        self._lead, self._differentiable = lead, differentiable
        self._rows: list[list[Tensor]] = []
        self._found: list[Found | None] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the ends of the attempt, whether it stands, and its events."""
        found = attempted.found
        row = [attempted.t0, attempted.t1 if found is None else found.whole, attempted.reached, attempted.moved]
        if not self._differentiable:
            row = [part.detach() for part in row]
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
        last = last if self._differentiable else last.detach()
        nothing = [last, last, torch.zeros_like(last, dtype=torch.int64), torch.zeros_like(last, dtype=torch.bool)]
        t0, t1, reached, moved = (torch.stack(column) for column in zip(nothing, *self._rows, strict=True))
        if until is not None:
            # The first is kept: a problem repeats a step of its own where others go on.
            wanted = torch.where(t1 > t0, t0 < until, t0 > until) | (moved.cumsum(0) == 1)
            moved = moved & wanted
        # Every problem's own steps first; what remains has no length.
        ends = t1
        order = torch.argsort((~moved).to(torch.int8), dim=0, stable=True)
        t0, t1, reached, moved = (column.gather(0, order) for column in (t0, t1, reached, moved))
        t0, t1 = torch.where(moved, t0, last), torch.where(moved, t1, last)
        if under_transform():
            n = next(i for i in range(len(moved)) if not any_lane(moved[i]))
            n_whole = next(i for i in range(len(moved)) if any_lane(~moved[i]))
        else:
            counts = moved.sum(0)
            n, n_whole = torch.stack([counts.max(), counts.min()]).tolist() if moved.numel() else (0, 0)
        return StepRecord(t0[:n], t1[:n], reached[:n], moved[:n], n_whole, self._events(ends.detach(), order[:n]))

    def _events(self, t1: Tensor, order: Tensor) -> Found | None:
        """The events of the steps in their order, if there are any."""
        n_events = next((len(found.at) for found in self._found if found is not None), 0)
        if not n_events:
            return None
        rows = [
            Found.nothing(end, n_events) if found is None else found
            for end, found in zip(t1, [None, *self._found], strict=True)
        ]
        structure = tree_structure(rows[0])
        columns = zip(*(tree_leaves(row) for row in rows), strict=True)
        events: Found = tree_unflatten([torch.stack(column).gather(0, order) for column in columns], structure)
        return events


def replay(
    problem: Problem, record: StepRecord, x0: Tensor, observers: Sequence[Observer], carry: Any = None
) -> tuple[Tensor, Any, int]:
    """Repeats accepted steps, differentiably.

    A problem that is not stepped repeats the step before, which was finite, and one that never moved takes the numbers of
    another; the results are dropped. See `dyn_numerics.substitutes`.

    Args:
        problem: The problem, its clock with the differentiable times.
        record: Its accepted steps.
        x0: State at the start, `[*lead, N]`.
        observers: Told of every step.
        carry: The stepper's at the start; made there if not given.

    Returns:
        The last states, what the stepper carries there, and the calls of `f`.
    """
    stepper, clock, field, events = problem.stepper, problem.clock, problem.f, problem.events
    x, n_evals = x0, 0
    shift = problem.shift
    previous, places = None, None
    if record.n_whole == 0 and len(record) and record.taken.dim() > 1:
        places = substitutes(record.taken[0])
        field, stepper = problem.f.take(places), stepper.on(problem.context.take(places))
    f = Counter(field)
    for i in range(len(record)):
        taken, reached = record.taken[i], record.reached[i]
        start = clock.start_of_step(record.t0[i], reached, shift)
        end = clock.end_of_step(record.t1[i], reached, shift)
        inputs = start, end, x, carry
        if i >= record.n_whole:
            inputs = inputs if previous is None else where(taken, inputs, previous)
            inputs = substituted(places, inputs)
        t0, t1, at, known = inputs
        if i == 0 and carry is None:
            first = clock.sided(f, t0, t1, at)
            slope = first(state_time(t0, at), at) if problem.completes else None
            known = stepper.init(first, state_time(t0, at), at, slope)
            carry = known
        previous = tree_map_only(Tensor, Tensor.detach, (t0, t1, at, known))
        sided = clock.sided(f, t0, t1, at)
        step = stepper.step(sided, t0, t1, at, known)
        if problem.completes:
            step = stepper.complete(sided, t1, step)
        before, ends = (record.t0[i], record.t1[i], reached, i, at), (start, end)
        attempted = AttemptedStep(problem, *before, step, taken, *ends, (t0, t1), field=field)
        after, carried = step.x, step.carry
        found = record.events(i)
        if events is not None and found is not None:
            piece = Piece(t0, t1, step.x, lambda made=attempted: made.interpolant)  # type: ignore[misc]
            met = events.carry_out(stepper, f, piece, step, found)
            after, carried = met.x, met.carry
            attempted = replace(
                attempted,
                t1=found.end,
                end=where(taken, met.end, end),
                stepped=(t0, met.end),
                step=met.step,
                found=found,
                occurrences=met.occurrences,
                _interpolant=met.interpolant,
            )
        for observer in observers:
            observer.observe(attempted)
        n_evals += attempted.n_evals
        if clock.jumps:
            carried = across(problem, f, (attempted.t1, attempted.end), after, carried, taken)
        x = where(taken, after, x)
        carry = where(taken, carried, carry)
        if shift is not None:
            shift = where(taken, attempted.end - attempted.t1, shift)
    return x, carry, n_evals + f.calls
