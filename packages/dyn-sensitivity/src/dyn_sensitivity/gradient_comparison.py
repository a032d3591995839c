"""Several gradients of one problem, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

__all__ = ["GradientComparison", "MeasuredGradient"]


@dataclass(frozen=True)
class MeasuredGradient:
    """One algorithm's gradient of a problem, and what it cost.

    Attributes:
        algorithm: Name of the algorithm, or how it is made.
        error: Distance from the reference, relative to its size: Euclidean norms over everything that has a gradient.
        seconds: Time of a solve and its gradient.
        kept_bytes: Memory of the tensors that live between the solve and its backward pass, the solution among them.
        peak_bytes: The most memory that tensors take at a time, from the start of the solve to the end of the backward pass.
        forward_evals: Calls of the field by the solve.
        backward_evals: Calls by the backward pass.
        failure: The sentence by which the algorithm refused or failed, and nothing above was measured; None where it did not.
    """

    algorithm: str
    error: float = nan
    seconds: float = nan
    kept_bytes: int = 0
    peak_bytes: int = 0
    forward_evals: int = 0
    backward_evals: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class GradientComparison:
    """What `compare_gradients` found; prints as a table.

    Attributes:
        rows: One for each algorithm, in the order in which they were named.

    Example:
        >>> from dyn_sensitivity import GradientComparison, MeasuredGradient
        >>> measured = MeasuredGradient("autograd", 2e-5, 0.0123, 40_960, 51_200, 92, 0)
        >>> print(GradientComparison((measured, MeasuredGradient("reversible", failure="solver: got Tsit5"))))
        algorithm   error    time, ms  kept, kB  peak, kB  forward calls  backward calls
        autograd    2.0e-05     12.30      41.0      51.2             92               0
        reversible  solver: got Tsit5
    """

    rows: tuple[MeasuredGradient, ...]

    def __str__(self) -> str:
        head = ("algorithm", "error", "time, ms", "kept, kB", "peak, kB", "forward calls", "backward calls")
        measured = {row.algorithm: _cells(row) for row in self.rows if row.failure is None}
        widths = [max(map(len, column)) for column in zip(head[1:], *measured.values(), strict=True)]
        first = max(len(name) for name in (head[0], *(row.algorithm for row in self.rows)))

        def line(name: str, cells: tuple[str, ...]) -> str:
            error, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            return "  ".join([name.ljust(first), error.strip().ljust(widths[0]), *rest])

        lines = [line(head[0], head[1:])]
        for row in self.rows:
            cells = measured.get(row.algorithm)
            lines.append(f"{row.algorithm:{first}}  {row.failure}" if cells is None else line(row.algorithm, cells))
        return "\n".join(lines)


def _cells(row: MeasuredGradient) -> tuple[str, ...]:
    return (
        f"{row.error:.1e}",
        f"{1e3 * row.seconds:.2f}",
        f"{row.kept_bytes / 1e3:.1f}",
        f"{row.peak_bytes / 1e3:.1f}",
        str(row.forward_evals),
        str(row.backward_evals),
    )
