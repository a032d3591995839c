"""Errors that a solve can end with. Misuse raises `ValueError` or `TypeError` instead, before any work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyn_numerics.status import Ending, Status

if TYPE_CHECKING:
    from dyn_numerics.ode.solution import Solution
    from dyn_numerics.root.root_solution import RootSolution

__all__ = [
    "BracketError",
    "CoupledSamplesError",
    "DiscontinuityError",
    "DivergenceError",
    "EventError",
    "MaxStepsError",
    "NewtonError",
    "NonFiniteError",
    "PartedStatesError",
    "SingularJacobianError",
    "SolverError",
    "StagnationError",
    "StepUnderflowError",
    "StiffnessError",
    "solver_error",
]


class SolverError(RuntimeError):
    """A solve did not reach its end.

    Attributes:
        solution: What was computed until then: a `Solution`, NaN at the output times that were not reached, or a
            `RootSolution` with the best iterates.
        status: How the solve ended, a `Status` or a `RootStatus`.
    """

    def __init__(self, message: str, solution: Solution | RootSolution, status: Ending) -> None:
        super().__init__(message)
        self.solution = solution
        self.status = status

    def __reduce__(self) -> tuple[type[SolverError], tuple[str, Solution | RootSolution, Ending]]:
        return type(self), (str(self), self.solution, self.status)


class MaxStepsError(SolverError):
    """The solve used up `max_steps`."""


class StepUnderflowError(SolverError):
    """The step size became too small for time to advance, or smaller than `min_step`."""


class NonFiniteError(SolverError):
    """The field or the state was not finite, whatever the step size; or a residual, where an iteration went."""


class StiffnessError(SolverError):
    """The solve ran out of steps or of step size where the method's stability, not its accuracy, held the steps down."""


class DiscontinuityError(StepUnderflowError):
    """The step size became too small, and the error hardly fell with it."""


class EventError(SolverError):
    """A condition was NaN, or an event asked for more jumps than it may."""


class BracketError(SolverError):
    """A function has the same sign at both ends of a bracket."""


class CoupledSamplesError(SolverError):
    """The function of a root search mixes samples, or is not the same from call to call."""


class DivergenceError(SolverError):
    """The residual of a root search grew without bound."""


class SingularJacobianError(SolverError):
    """A Jacobian was singular, so that there was no step."""


class NewtonError(SolverError):
    """The equations of an implicit step had no solution that was found, whatever the step size."""


class PartedStatesError(SolverError):
    """The two states of a reversible method parted, whatever the step size."""


class StagnationError(SolverError):
    """A residual no longer fell, and was above its tolerance."""


_ERRORS: dict[Status, type[SolverError]] = {
    Status.MAX_STEPS: MaxStepsError,
    Status.STEP_UNDERFLOW: StepUnderflowError,
    Status.NON_FINITE: NonFiniteError,
    Status.STIFFNESS_SUSPECTED: StiffnessError,
    Status.DISCONTINUITY_SUSPECTED: DiscontinuityError,
    Status.TOO_MANY_JUMPS: EventError,
    Status.CONDITION_NOT_FINITE: EventError,
    Status.NEWTON_DIVERGED: NewtonError,
    Status.SINGULAR_MATRIX: NewtonError,
    Status.STATES_PARTED: PartedStatesError,
}


def solver_error(statuses: Sequence[Status], solution: Solution) -> SolverError:
    """Builds the error that belongs to the first status other than success.

    Args:
        statuses: How the solve ended, of every sample if they are solved one by one.
        solution: The partial solution; the time and the step size where it stopped are named in the message.
    """
    failed = [i for i, status in enumerate(statuses) if not status.is_success]
    status, first = statuses[failed[0]], failed[0]
    t, dt, n_steps = (
        number.reshape(-1)[first].item() for number in (solution.t_reached, solution.dt_last, solution.stats.n_steps)
    )
    whose, others = "It", ""
    if solution.status_code.dim():
        whose = f"Sample {first}"
        kinds = Counter(statuses[i].name for i in failed)
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        others = f" Of {len(statuses)} samples {len(failed)} failed ({counts})." if len(failed) > 1 else ""
    where = f"at t = {t:.10g}, step size {dt:.3g}"
    message = f"{status.sentence} {whose} stopped {where}, after {n_steps} steps.{others} {status.remedy}"
    return _ERRORS[status](message, solution, status)
