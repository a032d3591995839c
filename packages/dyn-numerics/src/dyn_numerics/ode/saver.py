"""What a solve keeps: observers of its accepted steps."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.interpolants.polynomial import evaluate
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.rows import Rows, stack
from dyn_numerics.ode.scalar import Flag, Scalar, both, where
from dyn_numerics.ode.search import count_below
from dyn_numerics.ode.times import Clock
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import any_lane

if TYPE_CHECKING:
    from dyn_numerics.ode.events.event_record import EventRecord
    from dyn_numerics.ode.internals import Internals

__all__ = ["SaveDense", "SaveGrid", "SaveSteps", "SaveTimes", "Saved", "Saver"]


class Saved(NamedTuple):
    """What was kept: times `[T, *lead]` in the dtype of times, states `[T, *lead, N]` there, and what else was wanted."""

    t: Tensor
    x: Tensor
    dense: DenseSolution | None = None
    internals: Internals | None = None
    events: tuple[EventRecord, ...] = ()


class Saver(Observer, Protocol):
    """An observer that keeps something of the solution."""

    @abstractmethod
    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """What was kept, once the solve has ended.

        Args:
            x: The last states, `[*lead, N]`.
            success: Where the solve reached its end, `[*lead]`.
            after: A count `[]` that comes out of the loop, for one that is compiled.
        """


class SaveTimes(Saver):
    """Keeps the interpolants of the steps that hold an output time, and evaluates all outputs at once.

    Args:
        clock: The clock.
        t: Output times `[T, *lead]` in the dtype of times; outputs are differentiable with respect to it.
        x0: State at the start, `[*lead, N]`, and wherever a span has no length.
        rows: Where the interpolants go.
    """

    def __init__(self, clock: Clock, t: Tensor, x0: Tensor, rows: Rows) -> None:
        self._clock, self._t, self._x0, self._rows = clock, t, x0, rows
        self._ahead: Tensor | None = None  # output times in the order of the solve, and infinity, [*lead, T + 1]
        if isinstance(clock.direction, Tensor) and len(t) > 2:
            ahead = (t.detach() * clock.direction).movedim(0, -1)
            ahead = torch.where(ahead < ahead[..., -1:], ahead, inf)  # at the end it is the state itself
            self._ahead = torch.cat([ahead, torch.full_like(ahead[..., :1], inf)], dim=-1)

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the step where it holds an output."""
        if len(self._t) > 2 and attempted.moved is not False:
            first, holds = self._first_output(attempted)
            stepper = attempted.problem.stepper
            if stepper.dense_evals and isinstance(holds, Tensor) and not torch.compiler.is_compiling():
                holds = holds if any_lane(holds) else False  # a host read is cheaper than such an interpolant
            if holds is not False:
                values = [attempted.start, attempted.end, attempted.interpolant]
                self._rows.add(holds, first, values, attempted.samples)

    def _first_output(self, attempted: AttemptedStep) -> tuple[int | Tensor, Flag]:
        """Index of the first output behind the start of the step, and whether the step holds it."""
        t0, t1 = attempted.t0, attempted.t1
        if self._ahead is None:
            times, direction = self._clock.times, self._clock.direction
            first = bisect_right(times, direction * t0, key=lambda t: direction * t)
            return first, first < len(times) - 1 and direction * times[first] <= direction * t1
        ahead = self._ahead if attempted.samples is None else self._ahead[attempted.samples]
        direction = attempted.problem.clock.direction
        following = count_below(ahead, (t0 * direction).unsqueeze(-1), including=True)  # type: ignore[union-attr]
        holds = ahead.gather(-1, following).squeeze(-1) <= t1 * direction
        return following.squeeze(-1), both(attempted.moved, holds)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The states at all times; NaN at those that the solve did not reach."""
        t = self._t
        empty = len(t) <= 2 or not len(self._rows)
        outputs = torch.full_like(x, torch.nan).expand(len(t), *x.shape) if empty else self._interpolated(after)
        # At the end it is the state itself, which moves with the end where an interpolant would move within its step.
        outputs = torch.where(((t == t[-1]) & success).unsqueeze(-1), x, outputs)
        outputs = torch.where((t == t[0]).unsqueeze(-1), self._x0, outputs)
        return Saved(t, outputs)

    def _interpolated(self, after: Tensor | None) -> Tensor:
        """States at all times from the interpolants, `[T, *lead, N]`; NaN where none holds the time."""
        t, lead, direction = self._t, self._x0.shape[:-1], self._clock.direction
        starts, ends, coefficients = self._rows.columns(after)  # [R, *lead], [R, *lead], [R, *lead, p + 1, N]
        ahead, ahead_ends = t.detach() * direction, ends.detach() * direction
        at = self._rows.locate(ahead, ahead_ends, after)  # [T, *lead]
        inside = (at >= 0) & (at < len(ends))
        at = at.clamp(min=0, max=len(ends) - 1)
        start, end = starts.gather(0, at), ends.gather(0, at)
        # The step may have ended before, or be one of a problem that did not move.
        found = inside & (ahead <= ahead_ends.gather(0, at)) & (start != end)
        theta = torch.where(found, (t - start) / torch.where(found, end - start, 1), 0)
        piece = coefficients[(at, *(torch.arange(n, device=t.device) for n in lead))]  # [T, *lead, p + 1, N]
        return torch.where(found.unsqueeze(-1), evaluate(piece, theta).to(self._x0.dtype), torch.nan)


class SaveGrid(Saver):
    """Keeps the states of a solve that lands on every output time and moves with it, so that nothing is interpolated.

    Args:
        t: Output times `[T, *lead]` in the dtype of times.
        x0: State at the start, `[*lead, N]`.
        rows: Where the states go.
    """

    def __init__(self, t: Tensor, x0: Tensor, rows: Rows) -> None:
        self._t, self._x0, self._rows = t, x0, rows

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the new state where it is an output."""
        lands = attempted.t1 == attempted.problem.clock.target(attempted.reached)
        holds = both(attempted.moved, lands)
        if holds is not False:
            self._rows.add(holds, attempted.reached + 1, [attempted.step.x], attempted.samples)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The states at all times; NaN at those that the solve did not reach."""
        t = self._t
        states, there = self._rows.states(self._x0, after)
        states = torch.where(there.unsqueeze(-1), states, torch.nan)
        states = torch.where(((t == t[-1]) & success).unsqueeze(-1), x, states)  # a repeated end pads a ragged span
        return Saved(t, torch.where((t == t[0]).unsqueeze(-1), self._x0, states))


class SaveSteps(Saver):
    """Keeps the ends of the accepted steps, padded with the last one where a sample has fewer than others.

    Args:
        start: Start time as the stepper receives it.
        x0: State there, `[*lead, N]`.
        t: Output times `[T, *lead]` in the dtype of times.
    """

    def __init__(self, start: Scalar, x0: Tensor, t: Tensor) -> None:
        self._like = t
        self._times = [start]
        self._states = [x0]

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the new time and state."""
        if attempted.moved is not False:
            moved = attempted.moved
            end, x = attempted.end, attempted.step.x
            if isinstance(moved, Tensor):
                end, x = torch.where(moved, end, self._times[-1]), torch.where(moved.unsqueeze(-1), x, self._states[-1])
            self._times.append(end)
            self._states.append(x)

    @property
    def last(self) -> Tensor:
        """The last state, `[*lead, N]`."""
        return self._states[-1]

    @property
    def t(self) -> Tensor:
        """The start and the end of every accepted step, `[n + 1, *lead]`."""
        return stack(self._times, self._like)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The start and the end of every accepted step, and the states there."""
        return Saved(self.t, torch.stack(self._states))


class SaveDense(Saver):
    """Keeps the interpolant of every accepted step, and the states at given times as another saver does."""

    def __init__(self, outputs: Saver, steps: SaveSteps, layout: StateLayout) -> None:
        self._outputs, self._steps, self._layout = outputs, steps, layout
        self._coefficients: list[Tensor] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the interpolant beside the outputs and the ends of the steps."""
        if attempted.moved is not False:
            self._outputs.observe(attempted)
            self._steps.observe(attempted)
            coefficients = attempted.interpolant
            if isinstance(attempted.moved, Tensor):  # what does not move is constant
                still = pad(
                    self._steps.last.to(coefficients.dtype).unsqueeze(-2), (0, 0, 0, coefficients.shape[-2] - 1)
                )
                coefficients = where(attempted.moved, coefficients, still)
            self._coefficients.append(coefficients)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The states at the given times, and the solution as a function of time if a step was accepted."""
        dense = None
        if self._coefficients:
            dense = DenseSolution(self._steps.t, torch.stack(self._coefficients), self._layout)
        return self._outputs.result(x, success, after)._replace(dense=dense)
