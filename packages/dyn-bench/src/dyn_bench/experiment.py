"""What an experiment is, and what comes of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf, isinf
from typing import Any, ClassVar, TypeVar

from matplotlib.figure import Figure
from rich.progress import Progress

__all__ = ["Experiment", "Measurement", "Outcome", "track"]

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """A measured figure and the interval it is expected in.

    A figure that could not be measured, since a library is not installed, say, stands there with the reason. It passes
    no more than one that misses its interval: nobody knows.

    Attributes:
        name: What was measured.
        value: The figure, or None.
        low: Least value that is expected.
        high: Greatest such value.
        reason: Why there is no figure, where there is none.

    Raises:
        ValueError: If there is neither a figure nor a reason, or both.

    Example:
        >>> from dyn_bench.experiment import Measurement
        >>> Measurement("accuracy", 0.98, low=0.99).verdict
        'missed, 0.01 below 0.99'
        >>> Measurement("time / peer's", None, high=0.4, reason="no peer").verdict
        'not measured (no peer)'
    """

    name: str
    value: float | None = None
    low: float = -inf
    high: float = inf
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            got = f"value {self.value} and reason {self.reason!r}"
            raise ValueError(f"{self.name}: got {got}, expected a figure or the reason why there is none")

    @property
    def passed(self) -> bool:
        """Whether the figure was measured and lies in the interval; one that is NaN does not."""
        return self.value is not None and self.low <= self.value <= self.high

    @property
    def miss(self) -> str | None:
        """By how much the figure misses the interval; None if it does not, or was not measured."""
        if self.passed or self.value is None:
            return None
        if self.value < self.low:
            return f"{self.low - self.value:.2g} below {self.low:.4g}"
        if self.value > self.high:
            return f"{self.value - self.high:.2g} above {self.high:.4g}"
        return f"{self.value} is no number"

    @property
    def verdict(self) -> str:
        """What is to be said about it: reached, missed and by how much, or not measured and why."""
        if self.value is None:
            return f"not measured ({self.reason})"
        return "reached" if self.passed else f"missed, {self.miss}"

    @property
    def expected(self) -> str:
        """The interval in signs: `0.99 … 1`, `≤ 0.04`, `≥ 0.99`, or the one number that it holds."""
        if isinf(self.low) and isinf(self.high):
            return "any"
        if isinf(self.low):
            return f"≤ {self.high:.4g}"
        if isinf(self.high):
            return f"≥ {self.low:.4g}"
        return f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} … {self.high:.4g}"


@dataclass(frozen=True)
class Outcome:
    """What an experiment measured and drew.

    Attributes:
        measurements: The figures.
        pictures: Figures to save, by the last part of their file name.
        records: Anything else to keep beside them, ready for JSON.
    """

    measurements: list[Measurement]
    pictures: dict[str, Figure]
    records: dict[str, Any] = field(default_factory=dict)


class Experiment(ABC):
    """A published result, run again, or a benchmark. Subclasses are frozen dataclasses: their fields are the settings.

    Attributes:
        name: Name on the command line.
        summary: One line about it.
        source: Where the expected figures come from.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def run(self, progress: Progress) -> Outcome:
        """Runs it, seeded, and shows how far it has come."""


def track(progress: Progress, steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Passes steps through and shows them as a bar of their own."""
    task = progress.add_task(description, total=total)
    for step in steps:
        yield step
        progress.advance(task)
