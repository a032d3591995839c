"""What precision costs: errors of a method over its evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Curve", "Point", "Work", "curves_as_markdown"]

Work = Literal["evaluations", "steps", "factorisations", "seconds"]
"""What may be counted as the work of a solve."""


class Point(NamedTuple):
    """One solve.

    Attributes:
        tolerance: Relative and absolute tolerance; None with fixed steps.
        error: Error at the end, scaled as the tolerance is.
        evaluations: Calls of the field.
        steps: Steps that were tried; None where nobody counted.
        factorisations: Factorisations of matrices; None where nobody counted.
        seconds: Time it took; None where nobody measured.
    """

    tolerance: float | None
    error: float
    evaluations: int
    steps: int | None = None
    factorisations: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Curve:
    """The solves of one problem by one method.

    An error at one time scatters: it may change its sign between two tolerances, and nearly vanish there. So curves are
    compared by the straight lines `error = constant * evaluations^(-order)` that fit their logarithms best, the error
    being what scatters.

    Args:
        points: Two solves at least, of unequal work.
        work: What is counted as work: the name of an attribute of points, which all of them have.

    Example:
        >>> from dyn_bench.protocols.work_precision import Curve, Point
        >>> fifth = Curve([Point(None, 1e-3, 100), Point(None, 1e-8, 1000)])
        >>> dearer = Curve([Point(None, 1e-3, 120), Point(None, 1e-8, 1200)])
        >>> round(dearer.needed(1e-8)), round(dearer.largest_ratio(fifth), 3)
        (1200, 1.2)
    """

    points: Sequence[Point]
    work: Work = "evaluations"

    @property
    def works(self) -> list[float]:
        """The work of every point."""
        return [getattr(point, self.work) for point in self.points]

    @property
    def error_per_tolerance(self) -> float:
        """The largest error over its tolerance, of all solves that have one."""
        return max(point.error / point.tolerance for point in self.points if point.tolerance is not None)

    def needed(self, error: float) -> float:
        """How many evaluations, or how much other work, the line takes for an error."""
        slope, constant = self._line()
        return exp((log(error) - constant) / slope)

    def largest_ratio(self, other: Curve, most_error: float = 0.1) -> float:
        """The most evaluations that this takes for one of the other, at equal error.

        Args:
            other: What it is held against.
            most_error: The largest error that is still compared: beyond it, nothing was solved.
        """
        low = max(curve._error(max(curve.works)) for curve in (self, other))
        high = min(most_error, *(curve._error(min(curve.works)) for curve in (self, other)))
        return max(self.needed(error) / other.needed(error) for error in (low, high))  # lines: at an end

    def record(self) -> list[dict[str, Any]]:
        """The points, ready for JSON."""
        return [point._asdict() for point in self.points]

    def _error(self, work: float) -> float:
        slope, constant = self._line()
        return exp(slope * log(work) + constant)

    def _line(self) -> tuple[float, float]:
        works, errors = np.log(self.works), np.log([point.error for point in self.points])
        slope, constant = np.polyfit(works, errors, 1).tolist()
        return slope, constant


def curves_as_markdown(records: Mapping[str, Any], tolerances: Iterable[float]) -> str:
    """Lays out what solves got at some tolerances: their error over the tolerance, and the evaluations it took.

    Args:
        records: For each problem the `record` of each curve, by its name.
        tolerances: Those of the columns; a solve that did not run at one of them has an empty cell there.
    """
    tolerances = list(tolerances)
    head = ["problem", "solve", *(f"{tolerance:.0e}" for tolerance in tolerances)]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---|" * len(tolerances)]
    for problem, solves in records.items():
        for name, points in solves.items():
            known = {f"{p['tolerance']:.3e}": p for p in points if p["tolerance"] is not None}
            cells = [known.get(f"{tolerance:.3e}") for tolerance in tolerances]
            if any(cells):
                shown = (f"{_short(p['error'] / p['tolerance'])}, {p['evaluations']}" if p else "" for p in cells)
                lines.append(f"| {problem} | {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:.2g}" if number < 100 else f"{number:.0f}"
