"""How a solve ended, as a sentence with a remedy."""

from __future__ import annotations

from enum import Enum
from typing import Self

__all__ = ["Ending", "Status"]


class Ending(Enum):
    """How a piece of work ended: members `(code, sentence, remedy)` of an enumeration that reads as sentences.

    Attributes:
        code: What a status code holds.
        sentence: What happened.
        remedy: What to do about it; empty if there is nothing to do.
    """

    code: int
    sentence: str
    remedy: str

    def __init__(self, code: int, sentence: str, remedy: str) -> None:
        self.code = code
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"  # short, for lists of them

    @property
    def is_success(self) -> bool:
        """Whether it ended as it was meant to."""
        return self.code == 0

    @classmethod
    def from_code(cls, code: int) -> Self:
        """Decodes an integer status code.

        Raises:
            ValueError: If no member has that code.
        """
        for member in cls:
            if member.code == code:
                return member
        raise ValueError(f"code: got {code}, expected one of {[member.code for member in cls]}")


class Status(Ending):
    """How a solve ended. The members read as sentences; `code` is what `Solution.status_code` holds.

    Example:
        >>> from dyn_numerics import Status
        >>> print(Status.MAX_STEPS)
        The solver used up max_steps before the end of t_span. Raise max_steps, loosen rtol and atol (...), or ...
    """

    SUCCESS = (0, "The solve reached the end of t_span.", "")
    MAX_STEPS = (
        1,
        "The solver used up max_steps before the end of t_span.",
        "Raise max_steps, loosen rtol and atol (with fixed steps: raise step_size), or shorten t_span.",
    )
    STEP_UNDERFLOW = (
        2,
        "The step size became too small for time to advance, or smaller than min_step.",
        "The solution probably has a singularity there: end t_span before it; "
        "if the state is smooth, loosen rtol and atol, lower min_step or use float64.",
    )
    NON_FINITE = (
        3,
        "f returned values that are not finite, or the state overflowed.",
        "Check f there for divisions by zero, logarithms or roots of negative numbers and overflow, "
        "end t_span before it, or, with fixed steps, try shorter ones.",
    )
    STIFFNESS_SUSPECTED = (
        4,
        "The step size was held down by the method's stability, not by its accuracy: the problem is probably stiff.",
        "Take a method for stiff problems, solver='rodas5p' or 'auto', or shorten t_span, loosen rtol and atol, or raise "
        "max_steps.",
    )
    DISCONTINUITY_SUSPECTED = (
        5,
        "The step size became too small, and the error hardly fell with it: f probably jumps there.",
        "Solve up to the jump and start again behind it, smooth f, or loosen rtol and atol.",
    )

    EVENT = (6, "The solve ended at an event that is terminal.", "")
    TOO_MANY_JUMPS = (
        7,
        "An event asked for more jumps than its max_jumps, or for one as good as at the time of its last.",
        "Jumps that follow each other ever faster come to rest (Zeno): end there with a terminal event, let the jump "
        "put the state to rest, or raise max_jumps.",
    )
    CONDITION_NOT_FINITE = (
        8,
        "The condition of an event was NaN.",
        "Check it for divisions by zero and for logarithms or roots of negative numbers, on both sides of the event: "
        "it is evaluated beyond it as well.",
    )

    NEWTON_DIVERGED = (
        9,
        "The Newton iteration of an implicit step did not converge, however short the step.",
        "f probably jumps or has no derivative there, or jac is not its derivative: check jac, smooth f, or end t_span "
        "before it; with fixed steps, try shorter ones.",
    )
    SINGULAR_MATRIX = (
        10,
        "The matrix of an implicit step was singular or not finite, however short the step.",
        "Check the derivatives of f there, or jac, for values that are not finite; with fixed steps, try shorter ones.",
    )
    STATES_PARTED = (
        11,
        "The two states of a reversible method parted, by more than 1000 tolerances, however short the step.",
        "Where solutions approach each other they do: lower the coupling of ReversibleRungeKutta, to 0.9 say, or take another "
        "solver, whose gradient sensitivity='checkpoint' has in little memory as well.",
    )

    @property
    def is_success(self) -> bool:
        """Whether the solve ended as it was meant to: at the end of `t_span`, or at an event."""
        return self in (Status.SUCCESS, Status.EVENT)
