"""What precision costs with each method for stiff problems, and with SciPy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

from rich.progress import Progress

from dyn_bench.benchmarks.stiff_chart import draw_stiff
from dyn_bench.benchmarks.stiff_setup import CurveSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.peers.scipy import scipy_stiff_solve
from dyn_bench.problems.hires import HIRES_TO_322
from dyn_bench.problems.orego import OREGO_TO_360
from dyn_bench.problems.pollu import POLLU_TO_60
from dyn_bench.problems.reference_problem import ReferenceProblem
from dyn_bench.problems.rober import ROBER_TO_1E11
from dyn_bench.problems.van_der_pol import VAN_DER_POL_TO_2000
from dyn_bench.protocols.solve import Solve, dyn_solve, values_and_evaluations
from dyn_bench.protocols.timing import one_thread
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_bench.protocols.work_precision import Curve, Point, Work
from dyn_numerics import SolverError

__all__ = ["stiff_work_precision"]

PROBLEMS = (ROBER_TO_1E11, HIRES_TO_322, OREGO_TO_360, VAN_DER_POL_TO_2000, POLLU_TO_60)
COUNTED = ROBER_TO_1E11
"""The problem whose evaluations and factorisations are held against SciPy's."""


def stiff_work_precision(progress: Progress, setup: CurveSetup) -> Outcome:
    """Solves problems of known end one at a time, eager, float64, over tolerances from loose to tight.

    Calls for Jacobians are evaluations: those of this library are counted within the field, a Jacobian that SciPy was given
    as one, and what it takes in its place where it was given none.

    Args:
        progress: Where to show how far it is.
        setup: Methods and tolerances.

    Returns:
        Every method's largest error over its tolerance; evaluations and factorisations over SciPy's at equal error, by
        straight lines through the logarithms; the curves.
    """
    own: dict[str, Callable[..., Solve]] = {
        name: partial(_solve, solver=name, max_steps=setup.max_steps) for name in setup.methods
    }
    peers: dict[str, Callable[..., Solve]] = {
        "SciPy Radau": partial(_peer, method="Radau"),
        "SciPy Radau, differences": partial(_peer, method="Radau", given=False),
        "SciPy BDF": partial(_peer, method="BDF"),
    }
    curves: dict[str, dict[str, Curve]] = {}
    missing: dict[str, str] = {}
    for problem in PROBLEMS:
        found: dict[str, Curve] = curves.setdefault(problem.name, {})
        for name, prepare in track(progress, (own | peers).items(), len(own | peers), problem.name):
            try:
                found[name] = Curve(_points(problem, prepare, setup.tolerances))
            except UnavailableError as error:
                missing[name] = str(error)
    measurements = [*_errors(curves, setup), *_ratios(curves[COUNTED.name], missing, setup)]
    records = {title: {name: curve.record() for name, curve in found.items()} for title, found in curves.items()}
    return Outcome(measurements, {"curves": draw_stiff(curves)}, records)


def _solve(problem: ReferenceProblem, tolerance: float, **method: Any) -> Solve:
    return dyn_solve(problem.field, problem.x0, problem.times(), tolerance=tolerance, floor=problem.floor, **method)


def _peer(problem: ReferenceProblem, tolerance: float, method: str, given: bool = True) -> Solve:
    field: Any = problem.field
    options: dict[str, Any] = {
        "tolerance": tolerance,
        "floor": problem.floor,
        "partials": field.partials if given else None,
    }
    return scipy_stiff_solve(field.components, problem.x0.unsqueeze(0), problem.times(), method=method, **options)


def _points(problem: ReferenceProblem, prepare: Callable[..., Solve], tolerances: Sequence[float]) -> list[Point]:
    """The solves until one takes too many steps: the next would take more."""
    points: list[Point] = []
    with suppress(SolverError):
        prepare(
            problem, tolerance=tolerances[0]
        ).run()  # so that no point has to wait for what is imported at first use
    for tolerance in tolerances:
        try:
            points.append(_point(problem, prepare(problem, tolerance=tolerance), tolerance))
        except SolverError:
            break
    return points


def _point(problem: ReferenceProblem, solve: Solve, tolerance: float) -> Point:
    with one_thread():
        start = perf_counter()
        result = solve.run()
        seconds = perf_counter() - start
    x, evaluations = values_and_evaluations(replace(solve, run=lambda: result))
    counts = solve.counts(result) if solve.counts else {}
    known = {name: counts.get(name) for name in ("steps", "factorisations")}
    return Point(tolerance, problem.error(x[-1].flatten()), evaluations, seconds=seconds, **known)


def _errors(curves: Mapping[str, Mapping[str, Curve]], setup: CurveSetup) -> list[Measurement]:
    measurements = []
    for problem, found in curves.items():
        for name in setup.methods:
            title, points = f"{problem}: {name}, error / tolerance", found[name].points
            value = found[name].error_per_tolerance if points else None
            reason = None if points else f"no solve within {setup.max_steps} steps"
            measurements.append(Measurement(title, value, high=100, reason=reason))
    return measurements


def _ratios(found: Mapping[str, Curve], missing: Mapping[str, str], setup: CurveSetup) -> list[Measurement]:
    """Evaluations and factorisations at equal error; those where differences replace the Jacobian for comparison only."""
    compared: tuple[tuple[Work, str, float], ...] = (
        ("evaluations", "SciPy Radau", 1.3),
        ("evaluations", "SciPy Radau, differences", inf),
        ("factorisations", "SciPy Radau", 1.3),
    )
    measurements = []
    for work, peer, high in compared:
        title = f"{COUNTED.name}: {setup.counted}, {work} / those of {peer} at an error of {setup.counted_error:.0e}"
        ratio = None
        if peer in found:
            counted, of = (
                replace(found[name], work=work).needed(setup.counted_error) for name in (setup.counted, peer)
            )
            ratio = counted / of
        measurements.append(Measurement(title, ratio, high=high, reason=missing.get(peer)))
    return measurements
