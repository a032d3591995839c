"""How the search for a root ended, as a sentence with a remedy."""

from __future__ import annotations

from dyn_numerics.status import Ending

__all__ = ["RootStatus"]


class RootStatus(Ending):
    """How the search ended for a sample. The members read as sentences; `code` is what `RootSolution.status_code` holds.

    Example:
        >>> from dyn_numerics import RootStatus
        >>> print(RootStatus.ROUNDING)
        The residual stalls at rounding, above its tolerance. Raise rtol or atol to what can be reached, or use float64.
    """

    CONVERGED = (0, "The residual is within its tolerance.", "")
    MAX_STEPS = (
        1,
        "The method used up max_steps before the residual was within its tolerance.",
        "Raise max_steps, start nearer to the solution, loosen rtol and atol, or try another solver "
        "(newton where Jacobians are cheap, anderson for a contraction).",
    )
    ROUNDING = (
        2,
        "The residual stalls at rounding, above its tolerance.",
        "Raise rtol or atol to what can be reached, or use float64.",
    )
    NON_FINITE = (
        3,
        "The residual was NaN or infinite where the method went.",
        "Check the function there for divisions by zero, logarithms or roots of negative numbers and overflow, start "
        "nearer to the solution, or try line_search='armijo', which steps back from such places.",
    )
    STAGNATED = (
        4,
        "The residual no longer falls, above its tolerance.",
        "There may be no root nearby: a local minimum of the residual, or a cycle. Try another start, "
        "line_search='armijo', or solver='levenberg_marquardt'. If the residual is as small as rounding lets it be, raise "
        "rtol or atol.",
    )
    DIVERGED = (
        5,
        "The residual grew far beyond where it started.",
        "Start nearer to the solution, try line_search='armijo' or more damping; a fixed-point iteration needs a "
        "contraction.",
    )
    SINGULAR = (
        6,
        "The Jacobian was singular, so that there was no step.",
        "Try another start, or solver='levenberg_marquardt', which takes steps there.",
    )
    NO_SIGN_CHANGE = (
        7,
        "The function has the same sign at both ends of the bracket.",
        "Give a bracket at whose ends the signs differ.",
    )
    COUPLED = (
        8,
        "The residual of a sample that had converged changed while it stood still: it depends on other samples, or on chance.",
        "Every row of z0 is a problem of its own: give a single system a batch of one, z0.unsqueeze(0), and keep batch "
        "normalisation, dropout in training and whatever else mixes samples or draws numbers out of the function.",
    )
