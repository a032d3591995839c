"""What precision costs with each explicit method, and with the peers'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.work_precision_chart import draw_work_precision
from dyn_bench.experiment import Experiment, Measurement, Outcome, track
from dyn_bench.peers.scipy import scipy_solve
from dyn_bench.peers.torchdiffeq import torchdiffeq_solve
from dyn_bench.problems.arenstorf import ARENSTORF_ORBIT
from dyn_bench.problems.lotka_volterra import LOTKA_VOLTERRA_TO_10
from dyn_bench.problems.reference_problem import ReferenceProblem
from dyn_bench.protocols.solve import Solve, dyn_solve, values_and_evaluations
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_bench.protocols.work_precision import Curve, Point

__all__ = ["WorkPrecision"]

PROBLEMS = (LOTKA_VOLTERRA_TO_10, ARENSTORF_ORBIT)
ADAPTIVE = ("bosh3", "dopri5", "tsit5", "vern7", "dopri8")
FIXED = "rk4"
PEERS: dict[str, Callable[..., Solve]] = {
    "torchdiffeq dopri5": torchdiffeq_solve,
    "torchdiffeq dopri8": partial(torchdiffeq_solve, method="dopri8"),
    "SciPy RK45": partial(scipy_solve, method="RK45"),
    "SciPy DOP853": scipy_solve,
}
COMPARED = {
    "dopri5": "torchdiffeq dopri5",
    "tsit5": "torchdiffeq dopri5",
    "vern7": "SciPy DOP853",
    "dopri8": "SciPy DOP853",
}

Curves = dict[str, dict[str, Curve]]
"""For each problem the curve of each solve, by its name."""


@dataclass(frozen=True)
class WorkPrecision(Experiment):
    """Errors and evaluations of solves of known end, over tolerances from loose to tight, float64.

    Solves have outputs at start and end. The error is that at the end, over the same scale as the tolerance.

    Args:
        loosest: Decimal exponent of the loosest tolerance, relative and absolute alike.
        tightest: That of the tightest.
        per_decade: Tolerances in every decade.
        fixed_steps: Numbers of steps of the method of fixed steps.
    """

    loosest: int = -4
    tightest: int = -10
    per_decade: int = 4
    fixed_steps: tuple[int, ...] = (100, 200, 400, 800, 1600, 3200, 6400)

    name: ClassVar[str] = "work-precision"
    summary: ClassVar[str] = "Errors and evaluations of the explicit methods, alone and beside the peers'."
    source: ClassVar[str] = "Reference solutions as in the problems; torchdiffeq and SciPy, in the same run"

    def run(self, progress: Progress) -> Outcome:
        entries: dict[str, Callable[..., Solve]] = {name: partial(dyn_solve, solver=name) for name in ADAPTIVE}
        entries |= PEERS
        curves: Curves = {}
        missing: dict[str, str] = {}
        for problem in PROBLEMS:
            found = curves[problem.name] = {FIXED: self._with_fixed_steps(problem)}
            for name, prepare in track(progress, entries.items(), len(entries), problem.name):
                try:
                    found[name] = _curve(problem, prepare, self.tolerances)
                except UnavailableError as error:
                    missing[name] = str(error)
        measurements = [*_errors(curves), *_ratios(curves, missing)]
        records = {title: {name: curve.record() for name, curve in found.items()} for title, found in curves.items()}
        return Outcome(measurements, {"curves": draw_work_precision(curves, own=(FIXED, *ADAPTIVE))}, records)

    @property
    def tolerances(self) -> list[float]:
        """The tolerances, the loosest first."""
        last = (self.loosest - self.tightest) * self.per_decade
        return [float(f"{10 ** (self.loosest - i / self.per_decade):.3g}") for i in range(last + 1)]

    def _with_fixed_steps(self, problem: ReferenceProblem) -> Curve:
        points = []
        for steps in self.fixed_steps:
            solve = dyn_solve(problem.field, problem.x0, problem.times(steps), tolerance=1.0, solver=FIXED)
            points.append(_point(problem, solve, tolerance=None))
        return Curve(points)


def _curve(problem: ReferenceProblem, prepare: Callable[..., Solve], tolerances: Iterable[float]) -> Curve:
    points = []
    for tolerance in tolerances:
        solve = prepare(problem.field, problem.x0, problem.times(), tolerance=tolerance)
        points.append(_point(problem, solve, tolerance))
    return Curve(points)


def _point(problem: ReferenceProblem, solve: Solve, tolerance: float | None) -> Point:
    x, evaluations = values_and_evaluations(solve)
    return Point(tolerance, problem.error(x[-1]), evaluations)


def _errors(curves: Curves) -> list[Measurement]:
    return [
        Measurement(f"{problem}: {name}, error / tolerance", found[name].error_per_tolerance, high=50)
        for problem, found in curves.items()
        for name in ADAPTIVE
    ]


def _ratios(curves: Curves, missing: Mapping[str, str]) -> list[Measurement]:
    measurements = []
    for problem, found in curves.items():
        for name, peer in COMPARED.items():
            title = f"{problem}: {name}, evaluations / {peer}'s at equal error"
            ratio = found[name].largest_ratio(found[peer]) if peer in found else None
            measurements.append(Measurement(title, ratio, high=1.1, reason=missing.get(peer)))
    return measurements
