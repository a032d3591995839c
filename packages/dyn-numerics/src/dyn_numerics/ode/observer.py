"""What watches a solve without being written into its loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dyn_numerics.ode.attempt import Attempt, Problem, State
from dyn_numerics.ode.events.found import Found, Occurrence
from dyn_numerics.ode.flat_field import Counter, SampledField
from dyn_numerics.ode.scalar import Flag, Scalar
from dyn_numerics.ode.stepper import Step

__all__ = ["AttemptedStep", "Observer"]


@dataclass
class AttemptedStep:
    """What an observer sees of an attempt.

    Attributes:
        problem: The problem.
        t0: Its start.
        t1: Its end.
        reached: Number of the clock's targets that had been reached before.
        index: Number of accepted steps before.
        x0: State at its start, `[*lead, N]`.
        step: The stepper's result.
        after: State with which the solve goes on if it moves, which is that of the step but for a jump.
        moved: Where the solve moves on: a truth value, or `[*lead]`.
        start: The start, as differentiable as it is.
        end: The end.
        stepped: The ends that the stepper received, those of another problem where one that did not move lent its place.
        running: Where it had not ended before.
        samples: Indices `[m]` of the samples that are still in the batch, or None when all are.
        field: The field then, which is that of the problems in whose places they are; that of the problem if None.
        found: The events of the step, without gradient, if any happened.
        occurrences: The same events with gradient, in their order, None for one that did not happen.
        n_evals: Calls of `f` that observers made, for the interpolant.
    """

    problem: Problem
    t0: Scalar
    t1: Scalar
    reached: Any
    index: Any
    x0: Tensor
    step: Step
    after: Tensor
    moved: Flag
    start: Scalar
    end: Scalar
    stepped: tuple[Scalar, Scalar]
    running: Flag = True
    samples: Tensor | None = None
    field: SampledField | None = None
    found: Found | None = None
    occurrences: tuple[Occurrence | None, ...] = ()
    n_evals: int = 0
    _interpolant: Tensor | None = None

    @classmethod
    def of(cls, problem: Problem, state: State, tried: Attempt, samples: Tensor | None = None) -> AttemptedStep:
        """An attempt of a driver."""
        return cls(
            problem=problem,
            t0=state.t,
            t1=tried.t1,
            reached=state.reached,
            index=state.n_accepted,
            x0=state.x,
            step=tried.step,
            after=tried.x,
            moved=tried.moved,
            start=tried.start,
            end=tried.end,
            stepped=(tried.start, tried.end),
            running=True if problem.branches else state.running,
            samples=samples,
            found=tried.found,
            occurrences=tried.occurrences,
            _interpolant=tried.interpolant,
        )

    @property
    def interpolant(self) -> Tensor:
        """Coefficients of the solution over the step, `[*lead, p + 1, N]`; made when first asked for."""
        if self._interpolant is None:
            f = Counter(self.problem.f if self.field is None else self.field)
            field = self.problem.clock.sided(f, *self.stepped, self.x0)
            self._interpolant = self.problem.stepper.interpolant(field, *self.stepped, self.x0, self.step)
            self.n_evals = f.calls
        return self._interpolant


class Observer(Protocol):
    """Watches attempts, accepted and rejected."""

    def observe(self, attempted: AttemptedStep) -> None:
        """Called for every attempt, in order."""
