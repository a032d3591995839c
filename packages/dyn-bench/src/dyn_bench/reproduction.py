"""What a reproduction is, and what comes of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, TypeVar

from matplotlib.figure import Figure
from rich.progress import Progress

__all__ = ["Measurement", "Outcome", "Reproduction", "track"]

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """A measured figure and the interval it is expected in.

    Attributes:
        name: What was measured.
        value: The figure.
        low: Least value that agrees with what was published.
        high: Greatest such value.

    Example:
        >>> from dyn_bench.reproduction import Measurement
        >>> Measurement("accuracy", 0.98, low=0.99).miss
        '0.98 is 0.01 below 0.99'
    """

    name: str
    value: float
    low: float = -inf
    high: float = inf

    @property
    def passed(self) -> bool:
        """Whether the figure lies in the interval; one that is NaN does not."""
        return self.low <= self.value <= self.high

    @property
    def miss(self) -> str | None:
        """By how much the figure misses the interval, or None."""
        if self.passed:
            return None
        if self.value < self.low:
            return f"{self.value:.4g} is {self.low - self.value:.2g} below {self.low:.4g}"
        if self.value > self.high:
            return f"{self.value:.4g} is {self.value - self.high:.2g} above {self.high:.4g}"
        return f"{self.value} is no number"


@dataclass(frozen=True)
class Outcome:
    """What a reproduction measured and drew.

    Attributes:
        measurements: The figures.
        pictures: Figures to save, by the last part of their file name.
        records: Anything else to keep beside them, ready for JSON.
    """

    measurements: list[Measurement]
    pictures: dict[str, Figure]
    records: dict[str, Any] = field(default_factory=dict)


class Reproduction(ABC):
    """A published result, run again. Subclasses are frozen dataclasses: their fields are the settings.

    Attributes:
        name: Name on the command line.
        summary: One line about it.
        source: Where the result was published.
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
