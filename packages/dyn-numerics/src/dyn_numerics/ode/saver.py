"""What a solve keeps: observers of its accepted steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.interpolants.polynomial import evaluate
from dyn_numerics.ode.kept_values import KeptValues
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.output_times import OutputTimes
from dyn_numerics.ode.own_rows import OwnRows
from dyn_numerics.ode.rows import Rows, stack
from dyn_numerics.ode.scalar import Scalar, both, where
from dyn_numerics.ode.steps import Steps
from dyn_numerics.ode.times import Clock
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import any_lane

if TYPE_CHECKING:
    from dyn_numerics.ode.events.event_record import EventRecord
    from dyn_numerics.ode.internals import Internals

__all__ = ["SaveDense", "SaveGrid", "SaveSteps", "SaveTimes", "SaveValues", "Saved", "Saver"]


class Saved(NamedTuple):
    """What was kept: times `[T, *lead]` in the dtype of times, states `[T, *lead, N]` there, and what else was wanted.

    Where a user's function says what to keep of a state, its vectors `[T, *lead, M + 1]` stand for the states.
    """

    t: Tensor
    x: Tensor
    steps: Steps | None = None
    dense: DenseSolution | None = None
    internals: Internals | None = None
    events: tuple[EventRecord, ...] = ()

    def without(self, lost: Tensor) -> Saved:
        """The same, with NaN where there is no solution.

        Args:
            lost: Which problems have none, `[*lead]`.
        """
        blank = lost.unsqueeze(-1)
        steps = self.steps and self.steps._replace(x=torch.where(blank, torch.nan, self.steps.x))
        dense = self.dense and self.dense.without(lost)
        return self._replace(x=torch.where(blank, torch.nan, self.x), steps=steps, dense=dense)


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
        self._times, self._direction = OutputTimes(clock, t), clock.direction
        self._t, self._x0, self._rows = t, x0, rows

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the step where it holds an output."""
        if self._times and attempted.moved is not False:
            first = self._times.first_in(attempted)
            holds = both(attempted.moved, self._times.holds(attempted, first))
            stepper = attempted.problem.stepper
            if stepper.dense_evals and isinstance(holds, Tensor) and not torch.compiler.is_compiling():
                holds = holds if any_lane(holds) else False  # a host read is cheaper than such an interpolant
            if holds is not False:
                values = [attempted.start, attempted.end, attempted.interpolant]
                self._rows.add(holds, first, values, attempted.samples)

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
        t, lead, direction = self._t, self._x0.shape[:-1], self._direction
        starts, ends, coefficients = self._rows.columns(after)  # [R, *lead], [R, *lead], [R, *lead, p + 1, N]
        ahead, ahead_ends = t.detach() * direction, ends.detach() * direction
        at = self._rows.locate(after)  # [T, *lead]
        inside = at >= 0
        at = at.clamp(min=0)
        start, end = starts.gather(0, at), ends.gather(0, at)
        # The step may have ended before, or be one of a problem that did not move.
        found = inside & (ahead <= ahead_ends.gather(0, at)) & (start != end)
        theta = torch.where(found, (t - start) / torch.where(found, end - start, 1), 0)
        piece = coefficients[(at, *(torch.arange(n, device=t.device) for n in lead))]  # [T, *lead, p + 1, N]
        return torch.where(found.unsqueeze(-1), evaluate(piece, theta).to(self._x0.dtype), torch.nan)


class SaveValues(Saver):
    """Keeps what a user's function makes of the interpolated states, as soon as the step that holds them is accepted.

    Args:
        clock: The clock.
        t: Output times `[T, *lead]` in the dtype of times; outputs are differentiable with respect to it.
        x0: State at the start, `[*lead, N]`, and wherever a span has no length.
        rows: Where the values go.
        values: The function.
    """

    def __init__(self, clock: Clock, t: Tensor, x0: Tensor, rows: Rows, values: KeptValues) -> None:
        self._times, self._t, self._x0, self._rows, self._values = OutputTimes(clock, t), t, x0, rows, values
        self._first = values(t[0], x0)

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the value at every output that the step holds."""
        if not self._times or attempted.moved is False:
            return
        output = self._times.first_in(attempted)
        while any_lane(holds := both(attempted.moved, self._times.holds(attempted, output))):
            # Where nobody asks, at the start of the step that was taken: what is not kept is finite in gradients.
            t = where(holds, _at(self._t, output), attempted.stepped[0])
            start = where(holds, attempted.start, attempted.stepped[0])
            length = where(holds, attempted.end - attempted.start, 1.0)
            theta = torch.as_tensor((t - start) / length, device=self._t.device)
            x = evaluate(attempted.interpolant, theta).to(self._x0.dtype)
            self._rows.add(holds, output, [self._values(t, x)], attempted.samples)
            output = output + holds

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The values at all times; NaN at those that the solve did not reach."""
        t = self._t
        found, there = self._rows.states(self._first, after)
        found = torch.where(there.unsqueeze(-1), found, torch.nan)
        last = _value_at_end(self._values, t, x, success, self._x0)
        found = torch.where(((t == t[-1]) & success).unsqueeze(-1), last, found)
        return Saved(t, torch.where((t == t[0]).unsqueeze(-1), self._first, found))


class SaveGrid(Saver):
    """Keeps the states of a solve that lands on every output time and moves with it, so that nothing is interpolated.

    Args:
        t: Output times `[T, *lead]` in the dtype of times.
        x0: State at the start, `[*lead, N]`.
        rows: Where the states go.
        values: What to keep of a state instead, or None.
    """

    def __init__(self, t: Tensor, x0: Tensor, rows: Rows, values: KeptValues | None = None) -> None:
        self._t, self._x0, self._rows, self._values = t, x0, rows, values
        self._first = x0 if values is None else values(t[0], x0)

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the new state where it is an output."""
        lands = attempted.t1 == attempted.problem.clock.target(attempted.reached)
        holds = both(attempted.moved, lands)
        if holds is not False:
            self._rows.add(holds, attempted.reached + 1, [_at_end_of_step(attempted, self._values)], attempted.samples)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The states at all times; NaN at those that the solve did not reach."""
        t = self._t
        states, there = self._rows.states(self._first, after)
        states = torch.where(there.unsqueeze(-1), states, torch.nan)
        last = x if self._values is None else _value_at_end(self._values, t, x, success, self._x0)
        states = torch.where(((t == t[-1]) & success).unsqueeze(-1), last, states)  # a repeated end pads a ragged span
        return Saved(t, torch.where((t == t[0]).unsqueeze(-1), self._first, states))


class SaveSteps(Saver):
    """Keeps the ends of the accepted steps, filled up with the last one where a sample has fewer than others.

    Args:
        start: Start time as the stepper receives it.
        x0: State there, `[*lead, N]`.
        t: Output times `[T, *lead]` in the dtype of times.
        values: What to keep of a state instead, or None.
        outputs: What keeps the states at given times; without, those at the steps stand for them.
    """

    def __init__(
        self,
        start: Scalar,
        x0: Tensor,
        t: Tensor,
        values: KeptValues | None = None,
        outputs: Saver | None = None,
    ) -> None:
        self._like, self._values, self._outputs = t, values, outputs
        self._times = [start]
        self._states = [x0 if values is None else values(start, x0)]
        self._moved: list[Tensor] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the new time and state."""
        if self._outputs is not None:
            self._outputs.observe(attempted)
        if attempted.moved is not False:
            self._times.append(attempted.end)
            self._states.append(_at_end_of_step(attempted, self._values))
            if isinstance(attempted.moved, Tensor):
                self._moved.append(attempted.moved)

    @property
    def steps(self) -> Steps:
        """The start and the end of every accepted step, `[n + 1, *lead]`, and the states there, `[n + 1, *lead, N]`."""
        t, x = stack(self._times, self._like), torch.stack(self._states)
        if self._moved:
            own = OwnRows(torch.stack([torch.ones_like(self._moved[0]), *self._moved]))
            t, x = own.repeated(t), own.repeated(x)
        return Steps(t, x)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The start and the end of every accepted step, and the states there."""
        steps = self.steps
        saved = Saved(*steps) if self._outputs is None else self._outputs.result(x, success, after)
        return saved._replace(steps=steps)


class SaveDense(Saver):
    """Keeps the interpolant of every accepted step, and the states at given times as another saver does."""

    def __init__(self, outputs: Saver, steps: SaveSteps, layout: StateLayout) -> None:
        self._outputs, self._steps, self._layout = outputs, steps, layout
        self._coefficients: list[Tensor] = []
        self._moved: list[Tensor] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps the interpolant beside the outputs and the ends of the steps."""
        if attempted.moved is not False:
            self._outputs.observe(attempted)
            self._steps.observe(attempted)
            self._coefficients.append(attempted.interpolant)
            if isinstance(attempted.moved, Tensor):
                self._moved.append(attempted.moved)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """The states at the given times, and the solution as a function of time if a step was accepted."""
        dense = None
        if self._coefficients:
            steps, coefficients = self._steps.steps, torch.stack(self._coefficients)
            if self._moved:
                own = OwnRows(torch.stack(self._moved))
                still = pad(steps.x[-1].to(coefficients.dtype).unsqueeze(-2), (0, 0, 0, coefficients.shape[-2] - 1))
                coefficients = where(own.kept, own.of(coefficients), still)
            dense = DenseSolution(steps.t, coefficients, self._layout)
        return self._outputs.result(x, success, after)._replace(dense=dense)


def _at_end_of_step(attempted: AttemptedStep, values: KeptValues | None) -> Tensor:
    """What is kept of the state at the end of a step."""
    x = attempted.step.x
    if values is None:
        return x
    return values(where(attempted.moved, attempted.end, attempted.stepped[1]), x)


def _value_at_end(values: KeptValues, t: Tensor, x: Tensor, success: Tensor, x0: Tensor) -> Tensor:
    """What is kept of the last states; where a solve did not succeed that of the first, which nobody asks for."""
    return values(torch.where(success, t[-1], t[0]), torch.where(success.unsqueeze(-1), x, x0))


def _at(t: Tensor, output: int | Tensor) -> Tensor:
    """The output times with an index, `[*lead]`; the last one beyond the end."""
    if isinstance(output, Tensor):
        return t.gather(0, output.clamp(max=len(t) - 1).unsqueeze(0)).squeeze(0)
    return t[output]
