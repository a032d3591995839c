"""How a solve ended, as a sentence with a remedy."""

from __future__ import annotations

from enum import Enum

__all__ = ["Status"]


class Status(Enum):
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
        "The step size became too small for time to advance.",
        "The solution probably has a singularity, or f a discontinuity, there: end t_span before it; "
        "if the state is smooth, loosen rtol and atol or use float64.",
    )
    NON_FINITE = (
        3,
        "f returned values that are not finite, or the state overflowed.",
        "Check f there for divisions by zero, logarithms or roots of negative numbers and overflow, "
        "end t_span before it, or, with fixed steps, try shorter ones.",
    )

    code: int
    sentence: str
    remedy: str

    def __init__(self, code: int, sentence: str, remedy: str) -> None:
        self.code = code
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip()

    @property
    def is_success(self) -> bool:
        """Whether the solve has a value at every output time."""
        return self is Status.SUCCESS

    @classmethod
    def from_code(cls, code: int) -> Status:
        """Decodes an integer status code.

        Raises:
            ValueError: If no member has that code.
        """
        for member in cls:
            if member.code == code:
                return member
        raise ValueError(f"code: got {code}, expected one of {[member.code for member in cls]}")
