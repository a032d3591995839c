"""One attempted step: pure, and all there is to a solve but its repetition."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.controllers.initial_step import initial_step
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.scalar import Scalar, minimum, where
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.times import Clock, state_time

__all__ = ["Attempt", "Problem", "State", "attempt", "commit", "initial_state", "next_time"]

LAST_STEP_STRETCH = 1.01  # a step that would leave less than 1 % of itself is stretched to the target (Hairer, DOPRI5)

# In units of the tolerance. Where the field ends at some state, steps that round away creep along it for ever.
NOTICEABLE = 0.01


@dataclass(frozen=True)
class Problem:
    """What stays the same over a solve.

    Attributes:
        f: Vector field on flat states.
        stepper: The method.
        controller: The step-size control.
        clock: The times to land on.
        error_norm: Norm of errors in units of the tolerance.
    """

    f: FlatField
    stepper: Stepper
    controller: Controller
    clock: Clock
    error_norm: ErrorNorm


class State(NamedTuple):
    """What a step changes.

    Attributes:
        t: Time.
        dt: Magnitude of the next step; infinity for "as far as the next target".
        target: Index of the clock's target that the solve is heading for.
        x: State, `[N]`.
        carry: The stepper's.
        memory: The controller's.
        stalled: Attempts that were not finite since the state last moved noticeably.
    """

    t: float
    dt: Scalar
    target: int
    x: Tensor
    carry: Any
    memory: Any
    stalled: int


class Attempt(NamedTuple):
    """What came of an attempt.

    Attributes:
        t1: Where it ended; equal to where it began if time could not advance.
        step: The stepper's result.
        error: Norm of the error in units of the tolerance.
        accept: The controller's verdict.
        dt: Magnitude of the next step.
        memory: The controller's.
    """

    t1: float
    step: Step
    error: Scalar
    accept: bool | Tensor
    dt: Scalar
    memory: Any


def initial_state(problem: Problem, x0: Tensor) -> State:
    """The state before the first attempt, with the size of the first step.

    A field that is not finite at the start has no step size: it is zero then.
    """
    clock, controller = problem.clock, problem.controller
    state = State(clock.start, inf, 0, x0, None, controller.init(), 0)
    if not clock.targets:
        return state
    t0 = state_time(clock.at(clock.start), x0)
    if not controller.adaptive:
        return state._replace(carry=problem.stepper.init(problem.f, t0, x0, None))
    slope = problem.f(t0, x0)
    if not bool(torch.isfinite(slope.detach()).all()):
        return state._replace(dt=0.0, stalled=1)
    dt: Scalar = controller.first_step or _estimate_first_step(problem, x0, slope)
    return state._replace(dt=dt, carry=problem.stepper.init(problem.f, t0, x0, slope))


@torch.no_grad()
def _estimate_first_step(problem: Problem, x0: Tensor, slope: Tensor) -> Scalar:
    clock = problem.clock
    return initial_step(
        f=problem.f,
        t0=clock.start,
        t1=clock.targets[-1],
        x0=x0,
        f0=slope,
        error_order=problem.stepper.error_order or problem.stepper.order,
        scaled_norm=lambda vector: problem.error_norm.at(x0, vector),
        as_time=lambda t: state_time(t, x0),
    )


def next_time(problem: Problem, state: State) -> float:
    """End of the next attempt: a step further, or the target if that is near enough."""
    target = problem.clock.targets[state.target]
    remaining = target - state.t
    if abs(remaining) <= LAST_STEP_STRETCH * state.dt:
        return target
    return state.t + problem.clock.direction * float(state.dt)


def attempt(problem: Problem, state: State) -> Attempt:
    """Attempts one step and has it judged; changes nothing."""
    t1 = next_time(problem, state)
    clock = problem.clock
    step = problem.stepper.step(problem.f, clock.at(state.t), clock.at(t1), state.x, state.carry)
    error: Scalar = 0.0
    if problem.controller.adaptive and step.error is not None:
        error = problem.error_norm.of_step(step.error, state.x, step.x)
    verdict = problem.controller.judge(error, problem.stepper.error_order or problem.stepper.order, state.memory)
    taken = abs(t1 - state.t)
    tried = where(verdict.accept, taken, minimum(taken, state.dt))  # a retry is shorter, however times round
    return Attempt(t1, step, error, verdict.accept, tried * verdict.factor, verdict.memory)


def commit(problem: Problem, state: State, tried: Attempt) -> State:
    """Moves on if the attempt stands, otherwise stays with a shorter step."""
    if not tried.accept:
        stalled = state.stalled + (1 if tried.error == inf else 0)
        return state._replace(dt=tried.dt, carry=tried.step.retry, memory=tried.memory, stalled=stalled)
    arrived = tried.t1 == problem.clock.targets[state.target]
    target = state.target + 1 if arrived else state.target
    stalled = state.stalled
    if stalled and problem.error_norm.at(state.x, tried.step.x - state.x) > NOTICEABLE:
        stalled = 0
    return State(tried.t1, tried.dt, target, tried.step.x, tried.step.carry, tried.memory, stalled)
