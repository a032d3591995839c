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
from dyn_numerics.ode.events.found import Crossing, EventMemory, Found, Happened, Met, Occurrence
from dyn_numerics.ode.events.jump import Jump
from dyn_numerics.ode.events.locate import first_crossing
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.scalar import Flag, Scalar, both, either, magnitude, maximum, minimum, negate, where
from dyn_numerics.ode.stepper import Step, Stepper
from dyn_numerics.ode.times import is_differentiable, state_time, time_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.status import Status
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane, in_forward_mode, n_differentiations, under_transform, under_vmap
from dyn_numerics.user_function import UserFunction

if TYPE_CHECKING:
    from dyn_numerics.ode.attempt import Attempt, Problem, State

__all__ = ["EventWatch"]

# Between two jumps of one event: a step after the first may be so much longer than the time between the last two, and below
# so many roundings of the time nobody can tell on which side of zero the condition is.
LONGEST_AFTER_JUMP = 4.0
LEAST_BETWEEN_JUMPS = 8.0

# Of its value a little later, what the value of a condition at the start of a step has to be for its sign to count.
CLEAR = 1 / 16


class EventWatch:
    """Looks for events in accepted steps, and cuts these where an event ends the solve or changes its state.

    Args:
        events: The events.
        conditions: Their conditions on flat states.
        jumps: Their jumps on flat states, None for events without one.
        differentiable: Whether times and states of events are differentiated.
        noticed: Where a watch that does not differentiate writes down that a jump could be.
    """

    def __init__(
        self,
        events: Sequence[Event],
        conditions: Sequence[Condition],
        jumps: Sequence[Jump | None],
        differentiable: bool = True,
        noticed: dict[str, bool] | None = None,
    ) -> None:
        self._events, self._conditions, self._jumps = events, conditions, jumps
        self._differentiable = differentiable
        self._noticed = {"differentiable": False} if noticed is None else noticed

    @classmethod
    def of(cls, events: Sequence[Event], args: Sequence[Any], layout: StateLayout) -> EventWatch | None:
        """The watch over a user's events, which take the further arguments `args`; None without events."""
        conditions = [
            Condition(
                f"events[{i}].condition", event, UserFunction(event.condition, args, layout, f"events[{i}].condition")
            )
            for i, event in enumerate(events)
        ]
        jumps = [
            None
            if event.jump is None
            else Jump(f"events[{i}].jump", UserFunction(event.jump, args, layout, f"events[{i}].jump"), layout)
            for i, event in enumerate(events)
        ]
        return cls(events, conditions, jumps) if events else None

    def __len__(self) -> int:
        return len(self._events)

    def take(self, samples: Tensor) -> EventWatch:
        """The watch over some of the samples, whose indices are `[m]`."""
        jumps = [None if jump is None else jump.take(samples) for jump in self._jumps]
        conditions = [condition.take(samples) for condition in self._conditions]
        return EventWatch(self._events, conditions, jumps, self._differentiable, self._noticed)

    def has_differentiable_conditions(self, t: Scalar, x: Tensor) -> bool:
        """Whether conditions have derivatives that the field and the start have not.

        Args:
            t: Start time.
            x: State there, `[*lead, N]`, without gradient.
        """
        return any(condition.is_differentiable(Piece.point(t, x)) for condition in self._conditions)

    @property
    def has_differentiable_jumps(self) -> bool:
        """Whether a jump that was made could be differentiated."""
        return self._noticed["differentiable"]

    def without_gradient(self) -> EventWatch:
        """The same watch in a loop that nobody differentiates; it notices whether a jump could be."""
        return EventWatch(self._events, self._conditions, self._jumps, differentiable=False, noticed=self._noticed)

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
                    field = problem.clock.sided(f, tried.start, tried.end, state.x)
                    made.append(problem.stepper.interpolant(field, tried.start, tried.end, state.x, step))
            return made[0]

        piece = Piece(tried.start, tried.end, step.x, interpolant)
        bare = Piece(state.t, state.t1, step.x, interpolant).detach()
        crossings, eventful = self._crossings(bare, memory, moved)
        signs = tuple(where(moved, c.after, sign) for c, sign in zip(crossings, memory.signs, strict=True))
        memory = memory._replace(signs=signs)
        if eventful:
            found, memory = self._judge(problem, bare, memory, crossings)
            met = self.carry_out(problem.stepper, f, piece, step, found)
            goes_on = negate(met.refused)
            found = found._replace(jumped=tuple(both(jumped, goes_on) for jumped in found.jumped))
            memory = memory._replace(code=where(met.refused, Status.NON_FINITE.code, memory.code))
            tried = tried._replace(
                step=met.step,
                t1=found.end,
                end=met.end,
                x=met.x,
                carry=met.carry,
                shift=where(moved, met.end - found.end, state.shift),
                found=found,
                occurrences=met.occurrences,
            )
            made[0] = met.interpolant
            if any_lane(_or(found.jumped)):
                tried, memory = self._start_again(problem, tried, memory, found, crossings)
        return tried._replace(events=memory, interpolant=made[0] if made else None, n_evals=f.calls)

    def _crossings(self, piece: Piece, memory: EventMemory, moved: Flag) -> tuple[list[Crossing], bool]:
        """What every condition does in a step, and whether any of it matters: two host reads, of tensors."""
        low: Scalar = 0.0 * piece.t1
        found = []
        unknown = [both(moved, sign == 0) for sign in memory.signs]
        nudged = any_lane(_or(unknown))
        for condition, event, sign, new in zip(self._conditions, self._events, memory.signs, unknown, strict=True):
            start: Scalar = low
            last = self._value(condition, piece, 1.0)
            is_nan = both(moved, last != last)
            if nudged:
                # At zero but for rounding, it has the sign that it has a little later.
                nudge = torch.finfo(piece.x1.dtype).eps ** 0.25
                first, later = self._value(condition, piece, 0.0), self._value(condition, piece, nudge)
                clear = magnitude(first) >= CLEAR * magnitude(later)
                is_nan = either(is_nan, both(new, later != later))
                sign = where(new, _sign(where(clear, first, later)), sign)
                start = where(both(new, negate(clear)), nudge + low, low)
            after = _sign(last)
            crosses = both(both(moved, negate(is_nan)), both(sign != 0, after != sign))
            if event.direction:
                crosses = both(crosses, sign == -event.direction)
            found.append(Crossing(crosses, 1.0 + low, start, sign, last, after, is_nan))
        if not any_lane(_or([either(c.crosses, c.is_nan) for c in found])):
            return found, False
        return [
            self._located(i, piece, crossing, crossing.crosses, 1.0 + low, crossing.last)
            for i, crossing in enumerate(found)
        ], True

    def _value(self, condition: Condition, piece: Piece, theta: Scalar) -> Scalar:
        value = condition.at(piece, theta)
        return value.item() if isinstance(piece.t1, float) else value

    def _located(self, i: int, piece: Piece, crossing: Crossing, sought: Flag, high: Scalar, value: Scalar) -> Crossing:
        """A crossing with the position of its zero before another position, where its value is known."""
        if not any_lane(sought):
            return crossing
        condition = self._conditions[i]
        theta = first_crossing(
            lambda theta: self._value(condition, piece, theta), sought, crossing.low, crossing.before, value, high
        )
        lost = both(sought, theta != theta)
        return crossing._replace(
            crosses=both(either(crossing.crosses, sought), negate(lost)),
            theta=where(both(sought, negate(lost)), theta, crossing.theta),
            is_nan=either(crossing.is_nan, lost),
        )

    def _judge(
        self, problem: Problem, piece: Piece, memory: EventMemory, crossings: list[Crossing]
    ) -> tuple[Found, EventMemory]:
        """Which events happen in a step, which of them change the state or end the solve, and the memory after them."""
        t0, t1 = piece.t0, piece.t1
        crossings[:], first_cut = self._until_cut(piece, crossings)
        cut, theta = first_cut <= 1, minimum(first_cut, 1.0)
        end = where(cut, piece.time(theta), t1)
        # The times of events that happen at once differ by rounding.
        eps, length = torch.finfo(time_dtype(piece.x1.device)).eps, magnitude(t1 - t0)
        rounding = eps * maximum(magnitude(t0), magnitude(t1))
        once = first_cut + 4 * rounding / where(length > 0, length, 1.0)
        happened = tuple(both(c.crosses, c.theta <= once) for c in crossings)
        thetas = tuple(where(both(cut, c.theta >= first_cut), theta, c.theta) for c in crossings)

        ended: Flag = False
        spent: Flag = False
        at_end = end == problem.clock.end
        for event, happens, count, since in zip(self._events, happened, memory.n_jumps, memory.since, strict=True):
            if event.jump is not None:
                at_once = both(count > 0, magnitude(end - since) <= LEAST_BETWEEN_JUMPS * rounding)
                spent = either(spent, both(happens, either(count >= event.max_jumps, at_once)))
            elif event.terminal:
                ended = either(ended, happens)
        spent = both(spent, negate(at_end))
        goes_on = both(negate(spent), negate(at_end))
        jumped = tuple(
            both(happens, goes_on if event.jump is not None else False)
            for event, happens in zip(self._events, happened, strict=True)
        )
        is_nan = both(negate(cut), _or([c.is_nan for c in crossings]))
        code = where(is_nan, Status.CONDITION_NOT_FINITE.code, memory.code)
        code = where(ended, Status.EVENT.code, where(spent, Status.TOO_MANY_JUMPS.code, code))
        n_jumps = tuple(count + done for count, done in zip(memory.n_jumps, jumped, strict=True))
        at = tuple(piece.time(theta) for theta in thetas)
        return Found(at, thetas, happened, jumped, cut, end, theta, t1), memory._replace(n_jumps=n_jumps, code=code)

    def _until_cut(self, piece: Piece, crossings: Sequence[Crossing]) -> tuple[list[Crossing], Scalar]:
        """The crossings before the step is cut, and the position of that; beyond 1 if it is not.

        What has its old sign at the end of the whole step may have crossed before the cut; and what crosses at the cut may
        do so a little later, as far as rounding can tell, and be on its far side there already.
        """
        found, first_cut = list(crossings), self._first_cut(crossings)
        for _ in crossings:
            if not any_lane(first_cut <= 1):
                break
            theta = minimum(first_cut, 1.0)
            for i, (event, c) in enumerate(zip(self._events, found, strict=True)):
                value = self._value(self._conditions[i], piece, theta)
                known = both(both(first_cut <= 1, first_cut > c.low), c.before != 0)
                passed = both(known, both(_sign(value) != c.before, value == value))
                if event.direction:
                    passed = both(passed, c.before == -event.direction)
                c = c._replace(theta=where(both(passed, c.crosses), minimum(c.theta, theta), c.theta))
                found[i] = self._located(i, piece, c, both(passed, negate(c.crosses)), theta, value)
            before, first_cut = first_cut, self._first_cut(found)
            if not any_lane(first_cut < before):
                break
        return found, first_cut

    def _first_cut(self, crossings: Sequence[Crossing]) -> Scalar:
        """Position of the first event that ends the step; beyond 1 if none does."""
        first: Scalar = inf + 0 * crossings[0].theta
        for event, crossing in zip(self._events, crossings, strict=True):
            if event.cuts:
                first = minimum(first, where(crossing.crosses, crossing.theta, inf))
        return first

    def _start_again(
        self, problem: Problem, tried: Attempt, memory: EventMemory, found: Found, crossings: Sequence[Crossing]
    ) -> tuple[Attempt, EventMemory]:
        """The step size after a jump, and the signs of the conditions there."""
        any_jumped, here = _or(found.jumped), Piece.point(found.end, tried.x).detach()
        end = tried.end if problem.learns else found.end
        signs, times, dt = [], [], tried.dt
        for i, (crossing, jumped) in enumerate(zip(crossings, found.jumped, strict=True)):
            # The sign of a condition that a jump moves is that right after it: nobody knows it yet.
            sign = where(found.happened[i], -crossing.before, crossing.before)
            known = both(negate(jumped), _sign(self._value(self._conditions[i], here, 1.0)) == sign)
            at_start = self._events[i].sign_at_start + 0 * sign
            signs.append(where(any_jumped, where(known, sign, at_start), memory.signs[i]))
            # Jumps that follow each other ever faster are not to be lost in a long step.
            longest = maximum(LONGEST_AFTER_JUMP * magnitude(end - memory.since[i]), problem.controller.min_step)
            dt = where(both(jumped, memory.n_jumps[i] > 1), minimum(dt, longest), dt)
            times.append(where(jumped, end, memory.since[i]))
        return tried._replace(dt=dt), memory._replace(signs=tuple(signs), since=tuple(times))

    def beyond(self, memory: EventMemory, t: Scalar, x: Tensor, landed: Flag) -> EventMemory:
        """The memory after a jump that no event made: what changes its sign there does not cross zero.

        Args:
            memory: The memory.
            t: The time.
            x: State after the jump, `[*lead, N]`.
            landed: Where there is one.
        """
        if not any_lane(landed):
            return memory
        here, signs = Piece.point(t, x).detach(), []
        for condition, event, sign in zip(self._conditions, self._events, memory.signs, strict=True):
            changed = both(landed, _sign(self._value(condition, here, 1.0)) != sign)
            signs.append(where(changed, event.sign_at_start + 0 * sign, sign))
        return memory._replace(signs=tuple(signs))

    def carry_out(self, stepper: Stepper, f: Counter, piece: Piece, step: Step, found: Found) -> Met:
        """Ends a step where its first event does, lets the state jump, and says what happened, with gradient.

        Args:
            stepper: The method.
            f: The field.
            piece: The whole step.
            step: What the method found in it.
            found: What happens in it.
        """
        happened = self.happen(piece, found)
        end, after, carry = happened.end, happened.after, step.carry
        jumped = both(_or(found.jumped), negate(happened.refused))
        if any_lane(jumped):
            t = state_time(end, after)
            carry = where(jumped, stepper.init(f, t, after, f(t, after)), carry)
        cut = step._replace(x=happened.x)
        return Met(cut, happened.interpolant, end, after, carry, happened.refused, happened.occurrences)

    def happen(self, piece: Piece, found: Found) -> Happened:
        """Lets the events of a step happen, with gradient.

        Args:
            piece: The whole step.
            found: What happens in it.
        """
        times = [
            where(happened, self._moving(condition, piece, t, theta, happened), piece.t1)
            if any_lane(happened)
            else piece.t1
            for condition, t, theta, happened in zip(
                self._conditions, found.at, found.thetas, found.happened, strict=True
            )
        ]
        end: Scalar = piece.t1
        for event, t, happened in zip(self._events, times, found.happened, strict=True):
            if event.cuts:
                end = where(happened, t, end)
        x, coefficients = piece.x1, piece.coefficients
        if any_lane(found.cut):
            theta = _moved(found.theta, piece.position(end))
            x = where(found.cut, piece.state(theta), x)
            coefficients = where(found.cut, piece.until(theta), coefficients)
        at_end, refused = x, False & found.cut
        occurrences: list[Occurrence | None] = []
        for event, jump, t, theta, happened, jumped in zip(
            self._events, self._jumps, times, found.thetas, found.happened, found.jumped, strict=True
        ):
            if not any_lane(happened):
                occurrences.append(None)
                continue
            before = x if event.cuts else piece.state(_moved(theta, piece.position(t)))
            if jump is not None and any_lane(jumped):
                after = self._after(jump, jumped, end, x)
                finite = torch.isfinite(after.detach()).all(dim=-1)
                made = both(jumped, bool(finite) if isinstance(jumped, bool) else finite)
                refused = either(refused, both(jumped, negate(made)))
                x = where(made, after, x)
            occurrences.append(Occurrence(happened, t, before, x if event.cuts else before))
        return Happened(end, at_end, coefficients, x, refused, tuple(occurrences))

    def _after(self, jump: Jump, jumped: Flag, t: Scalar, x: Tensor) -> Tensor:
        """The state after a jump."""
        places = self._places(jumped)
        jump = jump if places is None else jump.take(places)
        after = jump(*substituted(places, (t, x)))
        if not self._differentiable:
            self._noticed["differentiable"] |= is_differentiable(after)
            after = after.detach()
        return after

    def _moving(self, condition: Condition, piece: Piece, t: Scalar, theta: Scalar, happened: Flag) -> Scalar:
        """The time of an event with its derivatives: Newton corrections that are zero, with one rate, which is held fixed.

        Each is one order of derivatives more. There are two, or as many as transforms that differentiate.
        """
        if not self._is_differentiated:
            return t
        crosses = both(happened, theta > 0)
        if not any_lane(crosses):
            return piece.t0  # an event at the start of a step moves with it
        own, at_start = t, piece.t0
        places = self._places(crosses)
        if places is not None:
            condition, piece, t = condition.take(places), piece.lent(places), substituted(places, t)
        value, still = condition.along(piece, t), piece.detach()
        if not (value.requires_grad or piece.is_differentiable or under_transform() or in_forward_mode()):
            return t
        pull_back: Any
        _, pull_back = torch.func.vjp(  # type: ignore[misc]
            lambda t: condition.along(still, t), torch.as_tensor(t, dtype=value.dtype, device=value.device)
        )
        rate = pull_back(torch.ones_like(value))[0].detach()
        if not under_vmap() and any_lane(both(crosses, rate == 0)):
            raise ValueError(
                f"{condition.name}: got one whose derivative in time is zero where it changes its sign, expected one that "
                f"crosses zero with a slope, since the gradient of all that follows needs it; try x[..., 0] - level, or "
                f"torch.no_grad()"
            )
        rate, total = where(crosses, rate, torch.ones_like(value)), torch.zeros_like(value)
        for order in range(max(2, n_differentiations())):
            correction = -(condition.along(piece, t + total) if order else value) / rate
            # Where the condition only touches zero the derivative is not finite, and the time is all the same.
            total = total + torch.where(torch.isfinite(correction), correction - correction.detach(), 0)
        return where(crosses, own + total, at_start)

    @property
    def _is_differentiated(self) -> bool:
        wanted = torch.is_grad_enabled() or under_transform() or in_forward_mode()
        return self._differentiable and wanted

    def _places(self, wanted: Flag) -> Tensor | None:
        """Who is computed in the place of each sample, so that a function meets only states for which it is wanted."""
        if not (self._is_differentiated and isinstance(wanted, Tensor) and wanted.dim()):
            return None
        return substitutes(wanted)


def _moved(theta: Scalar, position: Scalar) -> Scalar:
    """A position with the gradient of another that is the same but for the rounding of times."""
    return theta + (position - position.detach()) if isinstance(position, Tensor) else theta


def _or(flags: Sequence[Flag]) -> Flag:
    return reduce(either, flags)


def _sign(value: Scalar) -> Scalar:
    return value.sign() if isinstance(value, Tensor) else float((value > 0) - (value < 0))
