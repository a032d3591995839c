"""Errors that a solve can end with. Misuse raises `ValueError` or `TypeError` instead, before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dyn_numerics.status import Status

if TYPE_CHECKING:
    from dyn_numerics.ode.solution import Solution

__all__ = ["MaxStepsError", "NonFiniteError", "SolverError", "StepUnderflowError", "solver_error"]


class SolverError(RuntimeError):
    """A solve did not reach its end.

    Attributes:
        solution: What was computed until then; NaN at the output times that were not reached.
        status: How the solve ended.
    """

    def __init__(self, message: str, solution: Solution, status: Status) -> None:
        super().__init__(message)
        self.solution = solution
        self.status = status

    def __reduce__(self) -> tuple[type[SolverError], tuple[str, Solution, Status]]:
        return type(self), (str(self), self.solution, self.status)


class MaxStepsError(SolverError):
    """The solve used up `max_steps`."""


class StepUnderflowError(SolverError):
    """The step size became too small for time to advance."""


class NonFiniteError(SolverError):
    """The field or the state was not finite, whatever the step size."""


_ERRORS: dict[Status, type[SolverError]] = {
    Status.MAX_STEPS: MaxStepsError,
    Status.STEP_UNDERFLOW: StepUnderflowError,
    Status.NON_FINITE: NonFiniteError,
}


def solver_error(status: Status, solution: Solution) -> SolverError:
    """Builds the error that belongs to a status other than success.

    Args:
        status: How the solve ended.
        solution: The partial solution; its `t_reached` and `dt_last` are named in the message.
    """
    where = f"at t = {solution.t_reached.item():.10g}, step size {solution.dt_last.item():.3g}"
    message = f"{status.sentence} It stopped {where}, after {solution.stats.n_steps.item()} steps. {status.remedy}"
    return _ERRORS[status](message, solution, status)
