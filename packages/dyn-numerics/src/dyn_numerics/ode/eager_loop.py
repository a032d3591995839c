"""The driver that repeats attempts in Python, one host read a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from dyn_numerics.ode.attempt import Problem, State, attempt, commit, next_time
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import Step
from dyn_numerics.status import Status

__all__ = ["AcceptedStep", "Observer", "Outcome", "solve"]

MOST_STALLED = 100  # more than it takes to shrink a step from the whole span to the rounding of float64 times


@dataclass
class AcceptedStep:
    """What an observer sees of an accepted step.

    Attributes:
        t1: Its end, a host number.
        start: Its start as the stepper received it.
        end: Its end as the stepper received it.
        x0: State at its start, `[N]`.
        step: The stepper's result.
    """

    problem: Problem
    t1: float
    start: Scalar
    end: Scalar
    x0: Tensor
    step: Step

    @cached_property
    def interpolant(self) -> Tensor:
        """Coefficients of the solution over the step, `[p + 1, N]`; made when first asked for."""
        return self.problem.stepper.interpolant(self.start, self.end, self.x0, self.step)


class Observer(Protocol):
    """Watches accepted steps."""

    interpolates: bool

    def on_accept(self, accepted: AcceptedStep) -> None:
        """Called once for every accepted step, in order."""


@dataclass(frozen=True)
class Outcome:
    """How a solve ended.

    Attributes:
        state: The last accepted state.
        status: Whether it reached the end.
        n_accepted: Accepted steps.
        n_rejected: Rejected attempts.
        dt: Magnitude of the last attempted step.
    """

    state: State
    status: Status
    n_accepted: int
    n_rejected: int
    dt: float


def solve(problem: Problem, state: State, observers: Sequence[Observer], max_steps: float) -> Outcome:
    """Repeats attempts from `state` until the clock's last target.

    Args:
        problem: What stays the same.
        state: Where to start.
        observers: Told of every accepted step.
        max_steps: Greatest number of attempts.

    Returns:
        The last accepted state and how the solve ended.
    """
    interpolates = any(observer.interpolates for observer in observers)
    n_accepted = n_rejected = 0
    dt = 0.0

    def outcome(status: Status) -> Outcome:
        return Outcome(state, status, n_accepted, n_rejected, dt)

    while state.target < len(problem.clock.targets):
        if n_accepted + n_rejected >= max_steps:
            return outcome(Status.MAX_STEPS)
        if next_time(problem, state) == state.t or state.stalled == MOST_STALLED:
            return outcome(Status.NON_FINITE if state.stalled else Status.STEP_UNDERFLOW)
        tried = attempt(problem, state)
        dt = abs(tried.t1 - state.t)
        if tried.accept:
            n_accepted += 1
            if interpolates:
                complete = problem.stepper.complete(problem.f, problem.clock.at(tried.t1), tried.step)
                tried = tried._replace(step=complete)
            accepted = AcceptedStep(
                problem, tried.t1, problem.clock.at(state.t), problem.clock.at(tried.t1), state.x, tried.step
            )
            for observer in observers:
                observer.on_accept(accepted)
        else:
            n_rejected += 1
        state = commit(problem, state, tried)
    return outcome(Status.SUCCESS)
