"""What watches the steps of a solve for events, and ends them there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dyn_numerics.ode.events.condition import Condition
from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.events.found import Crossing, EventMemory, Found, Met, Occurrence
from dyn_numerics.ode.events.jump import Jump
from dyn_numerics.ode.events.locate import first_crossing
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.scalar import Flag, Scalar, both, either, magnitude, maximum, minimum, negate, where
from dyn_numerics.ode.stepper import Step, Stepper
from dyn_numerics.ode.substitutes import substituted, substitutes
from dyn_numerics.ode.times import in_forward_mode, is_differentiable, state_time, time_dtype
from dyn_numerics.ode.user_function import UserFunction
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.status import Status
from dyn_numerics.transforms import any_lane, under_transform

if TYPE_CHECKING:
    from dyn_numerics.ode.attempt import Attempt, Problem, State

__all__ = ["EventWatch"]

# Between two jumps of one event: a step after the first may be so much longer than the time between the last two, and below
# so many roundings of the time nobody can tell on which side of zero the condition is.
LONGEST_AFTER_JUMP = 4.0
LEAST_BETWEEN_JUMPS = 2.0**14


class EventWatch:
    """Looks for events in accepted steps, and cuts these where an event ends the solve or changes its state.

    Args:
        events: The events.
        conditions: Their conditions on flat states.
        jumps: Their jumps on flat states, None for events without one.
        differentiable: Whether times and states of events are differentiated.
    """

    def __init__(
        self,
        events: Sequence[Event],
        conditions: Sequence[Condition],
        jumps: Sequence[Jump | None],
        differentiable: bool = True,
    ) -> None:
        self._events, self._conditions, self._jumps = events, conditions, jumps
        self._differentiable = differentiable

    @classmethod
    def of(cls, events: Sequence[Event], args: Sequence[Any], layout: StateLayout) -> EventWatch | None:
        """The watch over a user's events, which take the further arguments `args`; None without events."""
        conditions = [
            Condition(f"events[{i}].condition", event, UserFunction(event.condition, args, layout))
            for i, event in enumerate(events)
        ]
        jumps = [
            None if event.jump is None else Jump(f"events[{i}].jump", UserFunction(event.jump, args, layout), layout)
            for i, event in enumerate(events)
        ]
        return cls(events, conditions, jumps) if events else None

    def __len__(self) -> int:
        return len(self._events)

    def take(self, samples: Tensor) -> EventWatch:
        """The watch over some of the samples, whose indices are `[m]`."""
        jumps = [None if jump is None else jump.take(samples) for jump in self._jumps]
        conditions = [condition.take(samples) for condition in self._conditions]
        return EventWatch(self._events, conditions, jumps, self._differentiable)

    def is_differentiable(self, t: Scalar, x: Tensor) -> bool:
        """Whether events may have derivatives that the field and the start have not.

        Args:
            t: Start time.
            x: State there, `[*lead, N]`.
        """
        here = Piece.point(t, x)
        conditions = (condition.at(here, 1.0) for condition in self._conditions)
        return any(jump is not None for jump in self._jumps) or any(is_differentiable(value) for value in conditions)

    def without_gradient(self) -> EventWatch:
        """The same watch in a loop that nobody differentiates."""
        return EventWatch(self._events, self._conditions, self._jumps, differentiable=False)

    def init(self, number: Callable[[Scalar], Any], count: Callable[[int], Any], start: Scalar) -> EventMemory:
        """The memory before the first step.

        Args:
            number: Makes a number for every problem.
            count: Makes a count for every problem.
            start: Time of the start.
        """
        signs = tuple(number(event.sign_at_start) for event in self._events)
        n_jumps, since = tuple(count(0) for _ in signs), tuple(number(start) for _ in signs)
        return EventMemory(signs, n_jumps, since, count(Status.SUCCESS.code))

    def meet(self, problem: Problem, f: Counter, state: State, tried: Attempt) -> Attempt:
        """Cuts an attempt that was accepted where an event asks for it.

        Args:
            problem: The problem.
            f: Its field.
            state: The state before the attempt.
            tried: The attempt, its step completed.
        """
        step, moved, memory = tried.step, tried.moved, state.events
        if moved is False or memory is None:
            return tried
        made: list[Tensor] = []
        differentiated = torch.is_grad_enabled()

        def interpolant() -> Tensor:
            if not made:
                with torch.set_grad_enabled(differentiated):
                    made.append(problem.stepper.interpolant(f, *tried.stepped, state.x, step))
            return made[0]

        piece = Piece(tried.start, tried.end, step.x, interpolant)
        bare = Piece(state.t, state.t1, step.x, interpolant).detach()
        with torch.no_grad():
            crossings = [
                self._crossing(condition, event, bare, sign, moved)
                for condition, event, sign in zip(self._conditions, self._events, memory.signs, strict=True)
            ]
            found, memory = self._judge(problem, bare, memory, crossings, moved)
        tried = tried._replace(events=memory)
        if any(_any(happened) for happened in found.happened):
            met = self.carry_out(problem.stepper, f, piece, step, found)
            tried = tried._replace(
                step=met.step,
                t1=found.end,
                end=met.end,
                stepped=(tried.stepped[0], where(found.cut, met.end, tried.stepped[1])),
                x=met.x,
                carry=met.carry,
                shift=where(moved, met.end - found.end, state.shift),
                found=found._replace(whole=state.t1),
                occurrences=met.occurrences,
            )
            made[0] = met.interpolant
            if _any(_or(found.jumped)):
                tried = self._start_again(tried, memory, found, crossings)
        return tried._replace(interpolant=made[0] if made else None, n_evals=f.calls)

    def _crossing(self, condition: Condition, event: Event, piece: Piece, sign: Scalar, moved: Flag) -> Crossing:
        """Looks for a zero of a condition in a step."""
        on_host = isinstance(piece.t1, float)

        def value(theta: Scalar) -> Scalar:
            found = condition.at(piece, theta)
            return found.item() if on_host else found

        last, low = value(1.0), 0.0 * piece.t1
        is_nan = both(moved, last != last)
        unknown = both(moved, sign == 0)
        if _any(unknown):
            # It may be zero but for rounding, so that its sign is that a little later.
            nudge = torch.finfo(piece.x1.dtype).eps ** 0.25
            first = value(nudge)
            is_nan = either(is_nan, both(unknown, first != first))
            sign, low = where(unknown, _sign(first), sign), where(unknown, nudge + low, low)
        after = _sign(last)
        crosses = both(both(moved, negate(is_nan)), both(sign != 0, after != sign))
        if event.direction:
            crosses = both(crosses, sign == -event.direction)
        theta = first_crossing(value, crosses, low, sign, last) if _any(crosses) else 1.0 + 0 * low
        return Crossing(crosses, theta, sign, after, is_nan)

    def _judge(
        self, problem: Problem, piece: Piece, memory: EventMemory, crossings: Sequence[Crossing], moved: Flag
    ) -> tuple[Found, EventMemory]:
        """Which events happen in a step, which of them change the state or end the solve, and the memory after them."""
        t0, t1 = piece.t0, piece.t1
        first_cut: Scalar = inf + 0 * t1
        for event, crossing in zip(self._events, crossings, strict=True):
            if event.cuts:
                first_cut = minimum(first_cut, where(crossing.crosses, crossing.theta, inf))
        cut = first_cut <= 1
        end = where(cut, piece.time(minimum(first_cut, 1.0)), t1)
        # The times of events that happen at once differ by rounding.
        eps, length = torch.finfo(time_dtype(piece.x1.device)).eps, magnitude(t1 - t0)
        once = first_cut + 4 * eps * maximum(magnitude(t0), magnitude(t1)) / where(length > 0, length, 1.0)
        happened = tuple(both(crossing.crosses, crossing.theta <= once) for crossing in crossings)
        at = tuple(where(both(cut, c.theta >= first_cut), end, piece.time(c.theta)) for c in crossings)

        ended: Flag = False
        spent: Flag = False
        shortest = LEAST_BETWEEN_JUMPS * eps * maximum(magnitude(t0), magnitude(t1))
        for event, happens, count, since in zip(self._events, happened, memory.n_jumps, memory.since, strict=True):
            if event.jump is not None:
                at_once = both(count > 0, magnitude(end - since) <= shortest)
                spent = either(spent, both(happens, either(count >= event.max_jumps, at_once)))
            elif event.terminal:
                ended = either(ended, happens)
        goes_on = both(negate(spent), end != problem.clock.end)
        jumped = tuple(
            both(happens, goes_on if event.jump is not None else False)
            for event, happens in zip(self._events, happened, strict=True)
        )
        is_nan = both(negate(cut), _or([crossing.is_nan for crossing in crossings]))
        code = where(is_nan, Status.CONDITION_NOT_FINITE.code, memory.code)
        code = where(ended, Status.EVENT.code, where(spent, Status.TOO_MANY_JUMPS.code, code))
        memory = memory._replace(
            signs=tuple(where(moved, c.after, sign) for c, sign in zip(crossings, memory.signs, strict=True)),
            n_jumps=tuple(count + done for count, done in zip(memory.n_jumps, jumped, strict=True)),
            code=code,
        )
        return Found(at, happened, jumped, cut, end, t1), memory

    def _start_again(self, tried: Attempt, memory: EventMemory, found: Found, crossings: Sequence[Crossing]) -> Attempt:
        """The step size after a jump, and the signs of the conditions there."""
        any_jumped, here = _or(found.jumped), Piece.point(found.end, tried.x.detach())
        signs, times, dt = [], [], tried.dt
        for i, (crossing, jumped) in enumerate(zip(crossings, found.jumped, strict=True)):
            # The sign of a condition that a jump moves is that right after it: nobody knows it yet.
            sign = where(found.happened[i], crossing.after, crossing.before)
            with torch.no_grad():
                value = self._conditions[i].at(here, 1.0)
            now = _sign(value.item() if isinstance(sign, float) else value)
            known = both(negate(jumped), now == sign)
            at_start = self._events[i].sign_at_start + 0 * sign
            signs.append(where(any_jumped, where(known, sign, at_start), memory.signs[i]))
            # Jumps that follow each other ever faster are not to be lost in a long step.
            longest = LONGEST_AFTER_JUMP * magnitude(found.end - memory.since[i])
            dt = where(jumped, minimum(dt, longest), dt)
            times.append(where(jumped, found.end, memory.since[i]))
        return tried._replace(dt=dt, events=memory._replace(signs=tuple(signs), since=tuple(times)))

    def carry_out(self, stepper: Stepper, f: Counter, piece: Piece, step: Step, found: Found) -> Met:
        """Ends a step where its first event does, lets the state jump, and says what happened, with gradient.

        Args:
            stepper: The method.
            f: The field.
            piece: The whole step.
            step: What the method found in it.
            found: What happens in it.
        """
        times = [
            where(happened, self._moving(condition, piece, t, happened), piece.t1) if _any(happened) else piece.t1
            for condition, t, happened in zip(self._conditions, found.at, found.happened, strict=True)
        ]
        end: Scalar = piece.t1
        for event, t, happened in zip(self._events, times, found.happened, strict=True):
            if event.cuts:
                end = where(happened, t, end)
        x, coefficients = step.x, piece.coefficients
        if _any(found.cut):
            theta = piece.position(end)
            x = where(found.cut, piece.state(theta), x)
            coefficients = where(found.cut, piece.until(theta), coefficients)
        cut = step._replace(x=x)
        occurrences: list[Occurrence | None] = []
        for event, jump, t, happened, jumped in zip(
            self._events, self._jumps, times, found.happened, found.jumped, strict=True
        ):
            if not _any(happened):
                occurrences.append(None)
                continue
            before = x if event.cuts else piece.state(piece.position(t))
            if jump is not None and _any(jumped):
                places = self._places(jumped)
                jump = jump if places is None else jump.take(places)
                x = where(jumped, jump(*substituted(places, (end, x))), x)
            occurrences.append(Occurrence(happened, t, before, x if event.cuts else before))
        carry, jumped = step.carry, _or(found.jumped)
        if _any(jumped):
            t = state_time(end, x)
            carry = where(jumped, stepper.init(f, t, x, f(t, x)), carry)
        return Met(cut, coefficients, end, x, carry, tuple(occurrences))

    def _moving(self, condition: Condition, piece: Piece, t: Scalar, happened: Flag) -> Scalar:
        """The time of an event with its gradient: one Newton correction, whose derivative is held fixed."""
        if not self._is_differentiated:
            return t
        crosses = both(happened, piece.detach().position(t) > 0)
        if not _any(crosses):
            return piece.t0  # an event at the start of a step moves with it
        own, at_start = t, piece.t0
        places = self._places(crosses)
        if places is not None:
            condition, piece, t = condition.take(places), piece.lent(places), substituted(places, t)
        value, still = condition.along(piece, t), piece.detach()
        pull_back: Any
        _, pull_back = torch.func.vjp(  # type: ignore[misc]
            lambda t: condition.along(still, t), torch.as_tensor(t, dtype=value.dtype, device=value.device)
        )
        (rate,) = pull_back(torch.ones_like(value))
        correction = -value / where(crosses, rate.detach(), torch.ones_like(value))
        # Where the condition only touches zero the derivative is not finite, and the time is all the same.
        correction = torch.where(torch.isfinite(correction), correction - correction.detach(), 0)
        return where(crosses, own + correction, at_start)

    @property
    def _is_differentiated(self) -> bool:
        wanted = torch.is_grad_enabled() or under_transform() or in_forward_mode()
        return self._differentiable and wanted

    def _places(self, wanted: Flag) -> Tensor | None:
        """Who is computed in the place of each sample, so that a function meets only states for which it is wanted."""
        if not (self._is_differentiated and isinstance(wanted, Tensor) and wanted.dim()):
            return None
        return substitutes(wanted)


def _any(flag: Flag) -> bool:
    return any_lane(flag) if isinstance(flag, Tensor) else flag


def _or(flags: Sequence[Flag]) -> Flag:
    return reduce(either, flags)


def _sign(value: Scalar) -> Scalar:
    return value.sign() if isinstance(value, Tensor) else float((value > 0) - (value < 0))
