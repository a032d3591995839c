"""One attempted step: pure, and all there is to a solve but its repetition.

Everything here reads the same on host numbers and on tensors. A driver that branches has host numbers for times and one
truth value for the verdict; one that selects has tensors `[*lead]`, one element for each problem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.loop import when
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.controllers.initial_step import initial_step
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.events.found import EventMemory, Found, Occurrence
from dyn_numerics.ode.events.watch import EventWatch
from dyn_numerics.ode.flat_field import Counter, SampledField
from dyn_numerics.ode.scalar import Flag, Scalar, both, either, magnitude, maximum, minimum, negate, where
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper, Work
from dyn_numerics.ode.times import Clock, state_time, time_dtype
from dyn_numerics.status import Status
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane

__all__ = ["Attempt", "Problem", "State", "across", "attempt", "commit", "initial_state", "look_ahead", "status_code"]

LAST_STEP_STRETCH = 1.01  # a step that would leave less than 1 % of itself is stretched to the target (Hairer, DOPRI5)

# In units of the tolerance. Where the field ends at some state, steps that round away creep along it for ever.
NOTICEABLE = 0.01
MOST_STALLED = 100  # more than it takes to shrink a step from the whole span to the rounding of float64 times


@dataclass(frozen=True)
class Problem:
    """What stays the same over a solve.

    Attributes:
        f: Vector field on flat states.
        stepper: The method, on the context.
        context: What it may know: how the state lies, extra arguments, the norm of errors in units of the tolerance.
        controller: The step-size control.
        clock: The times to land on.
        max_steps: Greatest number of attempts; infinity for any.
        completes: Whether accepted steps can be interpolated.
        branches: Whether the driver branches on one verdict, read by the host; otherwise it selects.
        learns: Whether the controller is trained through the solve, so that step sizes have gradients.
        events: What watches accepted steps for events, or None.
    """

    f: SampledField
    stepper: Stepper
    context: SolveContext
    controller: Controller
    clock: Clock
    max_steps: float
    completes: bool
    branches: bool
    learns: bool = False
    events: EventWatch | None = None

    @property
    def shift(self) -> Scalar | None:
        """Zero, with the gradient with which the start moves; None if all steps of chosen size move as it does."""
        clock = self.clock
        varies = self.events is not None or (clock.stops is not None and clock.differentiable is not None)
        return clock.shift if varies else None

    @property
    def lends(self) -> bool:
        """Whether rejected attempts are differentiated and selected among, so that some have to be of substitutes."""
        return self.learns and not self.branches

    @property
    def error_norm(self) -> ErrorNorm:
        """Norm of errors in units of the tolerance."""
        return self.context.norm

    @property
    def error_order(self) -> int:
        """Order of the error estimate, or of the method where it has none."""
        return self.stepper.error_order or self.stepper.order

    def take(self, samples: Tensor) -> Problem:
        """The problem of some of the samples, whose indices are `[m]`."""
        events = None if self.events is None else self.events.take(samples)
        context = self.context.take(samples)
        return replace(
            self,
            f=self.f.take(samples),
            stepper=self.stepper.on(context),
            context=context,
            clock=self.clock.take(samples),
            events=events,
        )


class State(NamedTuple):
    """What a step changes. Numbers are host numbers or tensors `[*lead]`.

    Attributes:
        t: Time.
        t1: End of the next attempt; equal to `t` where time cannot advance.
        dt: Magnitude of the next step; infinity for "as far as the next target".
        taken: Magnitude of the last attempted step.
        reached: Number of the clock's targets that have been reached.
        x: State, `[*lead, N]`.
        carry: The stepper's.
        memory: The controller's.
        stalled: Attempts that were not finite since the state last moved noticeably.
        n_steps: Attempts.
        n_accepted: Those that were accepted.
        n_active_evals: Calls of `f` while running.
        failed: Why the last attempt found no solution, the code of a `Status`, 0 if it did; None unless the method may fail.
        work: What an implicit method took; None for others.
        running: Whether it has not ended. What has ended stays as it is.
        shift: Zero, with the gradient with which the start of the next step moves; None if it moves with the clock.
        events: What is remembered of events; None without any.
    """

    t: Scalar
    t1: Scalar
    dt: Scalar
    taken: Scalar
    reached: Any
    x: Tensor
    carry: Any
    memory: Any
    stalled: Any
    n_steps: Any
    n_accepted: Any
    n_active_evals: Any
    failed: Any
    work: Work | None
    running: Flag
    shift: Scalar | None = None
    events: EventMemory | None = None


class Attempt(NamedTuple):
    """What came of an attempt.

    Attributes:
        step: The stepper's result; until the first event that ends the step.
        t1: Where it ends.
        start: Its start, as differentiable as it is.
        end: Its end.
        x: State with which an accepted attempt goes on, which is that of the step but for a jump.
        carry: The stepper's then.
        error: Norm of the error in units of the tolerance.
        moved: Where the solve moves on: the controller's verdict, of what is running.
        taken: Magnitude of the step.
        dt: That of the next one.
        memory: The controller's.
        n_evals: Calls of `f`.
        shift: Zero, with the gradient with which the start of the next step moves.
        events: What is remembered of events.
        found: The events of the step, without gradient, if any happened.
        occurrences: The same events with gradient, in their order.
        interpolant: Coefficients of the solution over the step, if somebody needed them.
    """

    step: Step
    t1: Scalar
    start: Scalar
    end: Scalar
    x: Tensor
    carry: Any
    error: Scalar
    moved: Flag
    taken: Scalar
    dt: Scalar
    memory: Any
    n_evals: Any
    shift: Scalar | None = None
    events: EventMemory | None = None
    found: Found | None = None
    occurrences: tuple[Occurrence | None, ...] = ()
    interpolant: Tensor | None = None


def initial_state(problem: Problem, x0: Tensor) -> tuple[State, int]:
    """The state before the first attempt, with the size of the first step, and the calls of `f` that it took.

    A field that is not finite at the start has no step size: it is zero then.
    """
    clock, controller, stepper = problem.clock, problem.controller, problem.stepper
    f = Counter(problem.f)
    number, count, flag = _makers(problem, x0)
    x0 = clock.beyond_start(x0)
    t0, field = state_time(clock.first, x0), clock.sided(f, clock.first, clock.end, x0)
    standing = problem.branches and bool(clock.start == clock.end)  # a span of no length takes no evaluation
    slope, dt, finite, x = None, number(controller.max_step), flag(True), x0
    if not standing and (controller.adaptive or (problem.completes and not problem.branches)):
        slope = field(t0, x0)
    if slope is not None and controller.adaptive:
        finite = torch.isfinite(slope.detach()).all(dim=-1)
        if problem.branches:
            finite = bool(finite.all())
        elif problem.lends:
            t0, x = substituted(substitutes(finite), (t0, x0))
            slope = field(t0, x)
        estimated: Scalar = 0.0
        if finite is not False:
            known = controller.first_step
            estimated = _estimate_first_step(problem, field, x, slope) if known is None else known
            estimated = minimum(maximum(estimated, controller.min_step), controller.max_step)
        dt = where(finite, number(estimated), number(0.0))
    carry = None if standing or finite is False else stepper.init(field, t0, x, slope)
    state = State(
        t=clock.start,
        t1=clock.start,
        dt=dt,
        taken=number(0.0),
        reached=count(0),
        x=x0,
        carry=carry,
        memory=_lift(controller.init(), number, flag),
        stalled=where(finite, count(0), count(1)),
        n_steps=count(0),
        n_accepted=count(0),
        n_active_evals=count(f.calls),
        failed=count(0) if stepper.may_fail else None,
        work=Work(count(0), count(0), count(0)) if stepper.implicit else None,
        running=flag(True),
        shift=problem.shift,
        events=None if problem.events is None else problem.events.init(number, count, clock.start),
    )
    return look_ahead(problem, state), f.calls


def _makers(problem: Problem, x0: Tensor) -> tuple[Any, Any, Any]:
    """What makes numbers, counts and truth values of the kind that the problem computes with."""
    if isinstance(problem.clock.start, float):
        return float, int, bool
    lead, device = x0.shape[:-1], x0.device

    def maker(dtype: torch.dtype) -> Any:
        def make(value: Any) -> Tensor:
            if isinstance(value, Tensor):
                return value.to(dtype)
            return torch.full(lead, value, dtype=dtype, device=device)

        return make

    return maker(time_dtype(device)), maker(torch.int64), maker(torch.bool)


def _lift(memory: Any, number: Any, flag: Any) -> Any:
    if isinstance(memory, tuple):
        parts = [_lift(part, number, flag) for part in memory]
        return type(memory)(*parts) if hasattr(memory, "_fields") else tuple(parts)
    if isinstance(memory, bool):
        return flag(memory)
    return number(memory) if isinstance(memory, (int, float)) else memory


def _estimate_first_step(problem: Problem, f: FlatField, x0: Tensor, slope: Tensor) -> Scalar:
    with torch.no_grad():
        estimated = initial_step(
            f=f,
            t0=problem.clock.start,
            t1=problem.clock.end,
            x0=x0.detach(),
            f0=slope.detach(),
            error_order=problem.error_order,
            scaled_norm=lambda vector: problem.error_norm.at(x0, vector),
            longest=problem.controller.max_step,
        )
    return estimated.detach() if isinstance(estimated, Tensor) else estimated


def attempt(problem: Problem, state: State) -> Attempt:
    """Attempts one step and has it judged; changes nothing."""
    controller, f = problem.controller, Counter(problem.f)
    step, error, start, end = _step_lending(problem, f, state) if problem.lends else _step(problem, f, state)
    verdict = controller.judge(error, problem.error_order, state.memory)
    accept, factor = verdict.accept, verdict.factor
    if problem.branches and isinstance(accept, Tensor):
        accept = bool(accept.item())
    if isinstance(factor, Tensor) and not problem.learns and (problem.branches or factor.requires_grad):
        factor = factor.item() if problem.branches else factor.detach()
    if problem.completes and accept is not False:
        step = problem.stepper.complete(problem.clock.sided(f, start, end, state.x), end, step)
    first, last = _ends(problem, state) if problem.learns else (state.t, state.t1)
    taken = magnitude(last - first)
    dt: Scalar = minimum(taken, state.dt) * factor  # a retry is shorter, however times round
    if controller.adaptive:  # a step that was cut short to land on a time says nothing against the one that was planned
        dt = where(factor > 1, maximum(dt, state.dt), dt)
    if controller.max_step < inf:
        dt = minimum(dt, controller.max_step)
    if controller.min_step > 0:
        dt = where(accept, maximum(dt, controller.min_step), dt)
    moved = accept if problem.branches else both(accept, state.running)
    tried = Attempt(
        step=step,
        t1=state.t1,
        start=start,
        end=end,
        x=step.x,
        carry=step.carry,
        error=error,
        moved=moved,
        taken=taken,
        dt=dt,
        memory=verdict.memory,
        n_evals=f.calls + step.n_evals,
        shift=None if state.shift is None else where(moved, end - state.t1, state.shift),
        events=state.events,
    )
    if problem.events is not None:
        tried = problem.events.meet(problem, f, state, tried)
    if problem.clock.jumps and moved is not False:
        beyond = across(problem, (tried.t1, tried.end), tried.x, tried.carry, moved)
        tried = tried._replace(x=beyond.x, carry=beyond.carry, n_evals=tried.n_evals + beyond.n_evals)
        if tried.events is not None:
            signs = problem.events.beyond(tried.events, tried.t1, tried.x, beyond.landed)  # type: ignore[union-attr]
            tried = tried._replace(events=signs)
    return tried


class Beyond(NamedTuple):
    """What a solve goes on with from a step that ends where something jumps.

    Attributes:
        x: State, `[*lead, N]`.
        carry: The stepper's.
        landed: Where there is a jump, a truth value or `[*lead]`.
        n_evals: Calls of `f`.
    """

    x: Tensor
    carry: Any
    landed: Flag
    n_evals: Any


def across(problem: Problem, end: tuple[Scalar, Scalar], x: Tensor, carry: Any, moved: Flag) -> Beyond:
    """Goes to the far side of where the field or the state jumps; the stepper's carry is made anew there.

    Args:
        problem: The problem.
        end: End of the step, as control knows it and as differentiable as it is.
        x: State there, `[*lead, N]`.
        carry: What the stepper would carry on otherwise.
        moved: Where the solve moves on.
    """
    clock, (t1, attached) = problem.clock, end
    x, landed = clock.beyond(t1, attached, x, moved)

    def anew() -> tuple[Any, int]:
        f = Counter(problem.f)
        t, field = state_time(attached, x), clock.sided(f, attached, clock.end, x)
        made = problem.stepper.init(field, t, x, field(t, x))
        return where(landed, made, carry), f.calls

    n_evals: Any = 0
    if carry is not None:  # a method that carries nothing evaluates its first slope itself
        some = landed.any() if torch.compiler.is_compiling() else any_lane(landed)  # type: ignore[union-attr]
        carry, n_evals = when(some, anew, lambda: (carry, 0))
    return Beyond(x, carry, landed, n_evals)


def _step(problem: Problem, f: Counter, state: State) -> tuple[Step, Scalar, Scalar, Scalar]:
    """One step, the norm of its error, and its ends as the stepper received them."""
    clock, stepper = problem.clock, problem.stepper
    start, end = _ends(problem, state)
    step = stepper.step(clock.sided(f, start, end, state.x), start, end, state.x, state.carry)
    error: Scalar = 0.0
    if problem.controller.adaptive and step.error is not None:
        norm = problem.error_norm
        error = norm.read(stepper.measure_error(step, lambda e: norm.of_step(e, state.x, step.x)))
    elif not problem.branches:
        error = where(torch.isfinite(step.x.detach()).all(dim=-1), state.taken * 0, inf)
    if step.failed is not None:
        if problem.branches and isinstance(step.failed, Tensor):
            step = step._replace(failed=step.failed.item())
        error = where(step.failed != 0, inf, error)
    if problem.learns and problem.branches and isinstance(error, Tensor) and not bool(torch.isfinite(error)):
        error = torch.full_like(error, inf)  # what is not finite has no gradient
    return step, error, start, end


def _ends(problem: Problem, state: State) -> tuple[Scalar, Scalar]:
    """Start and end of the next attempt, as differentiable as they are."""
    clock, reached, shift = problem.clock, state.reached, state.shift
    return clock.start_of_step(state.t, reached, shift), clock.end_of_step(state.t1, reached, shift)


def _step_lending(problem: Problem, f: Counter, state: State) -> tuple[Step, Scalar, Scalar, Scalar]:
    """As `_step`, with gradient; a problem whose attempt is not finite stands still meanwhile, where the field is."""
    with torch.no_grad():
        _, error, _, _ = _step(problem, f, state)
        own = torch.isfinite(error) & state.running  # type: ignore[arg-type]
        able = state.running | (state.n_accepted > 0)
    step, error, start, end = _step(
        problem, f, substituted(substitutes(able), state._replace(t1=where(own, state.t1, state.t)))
    )
    step = step._replace(retry=where(own, step.retry, state.carry))
    return step, where(own, error, where(state.running, inf, 1.0)), start, end


def commit(problem: Problem, state: State, tried: Attempt, careful: bool = True) -> State:
    """Moves on where the attempt stands, otherwise stays with a shorter step.

    Args:
        problem: The problem.
        state: The state before the attempt.
        tried: What came of it.
        careful: Whether any attempt was not finite before.
    """
    step, clock, running, moved = tried.step, problem.clock, True if problem.branches else state.running, tried.moved
    stalled = state.stalled + both(running, tried.error == inf)
    if careful:
        change = problem.error_norm.at(state.x, step.x - state.x)
        stalled = where(both(moved, change > NOTICEABLE), stalled * 0, stalled)
    reached = state.reached
    if clock.has_grid:
        reached = reached + both(moved, tried.t1 == clock.target(reached))
    stayed = state.carry
    if (
        problem.controller.adaptive and step.retry is not state.carry
    ):  # otherwise there is no retry, or it is what we have
        stayed = where(both(running, negate(moved)), step.retry, state.carry)
    return look_ahead(
        problem,
        State(
            t=where(moved, tried.t1, state.t),
            t1=tried.t1,
            dt=where(running, tried.dt, state.dt),
            taken=where(running, tried.taken, state.taken),
            reached=reached,
            x=where(moved, tried.x, state.x),
            carry=where(moved, tried.carry, stayed),
            memory=where(running, tried.memory, state.memory),
            stalled=stalled,
            n_steps=state.n_steps + running,
            n_accepted=state.n_accepted + moved,
            n_active_evals=state.n_active_evals + running * tried.n_evals,
            failed=None if state.failed is None else where(running, step.failed, state.failed),
            work=None if state.work is None else state.work.plus(running, step.work),
            running=state.running,
            shift=tried.shift,
            events=tried.events,
        ),
    )


def look_ahead(problem: Problem, state: State) -> State:
    """Sets the end of the next attempt, and whether there is one."""
    target = problem.clock.next_target(state.t, state.reached)
    left = magnitude(target - state.t)
    near = left <= LAST_STEP_STRETCH * state.dt
    t1 = where(near, target, state.t + problem.clock.direction * state.dt)
    state = state._replace(t1=t1)
    going = both(both(state.running, t1 != state.t), negate(_is_stuck(problem, state)))  # at the end t1 is t
    if state.events is not None:
        going = both(going, state.events.code == Status.SUCCESS.code)
    return state._replace(running=going)


def _is_stuck(problem: Problem, state: State) -> Any:
    """Whether no further attempt would help although time could advance."""
    controller = problem.controller
    stuck = state.stalled >= (MOST_STALLED if controller.adaptive else 1)
    if controller.min_step > 0 and controller.adaptive:
        # A step to a target may be short; any other that is shorter was asked for by a rejection.
        next_step = magnitude(state.t1 - state.t)
        target = problem.clock.next_target(state.t, state.reached)
        short = both(next_step < controller.min_step, state.t1 != target)
        stuck = either(stuck, short)
    return stuck


def status_code(problem: Problem, state: State) -> Any:
    """How a solve ended, as far as its last state says: an integer, or `[*lead]`."""
    spent: Any = where(state.n_steps >= problem.max_steps, Status.MAX_STEPS.code, Status.STEP_UNDERFLOW.code)
    stuck = where(state.stalled > 0, Status.NON_FINITE.code, Status.STEP_UNDERFLOW.code)
    if state.failed is not None:
        stuck = where(state.failed != 0, state.failed, stuck)
    code = where(either(state.t1 == state.t, _is_stuck(problem, state)), stuck, spent)
    code = where(state.t == problem.clock.end, Status.SUCCESS.code, code)
    if state.events is None:
        return code
    return where(state.events.code == Status.SUCCESS.code, code, state.events.code)
