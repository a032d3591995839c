"""A large state, with linear systems solved by products alone, beside those that are factorised."""

from __future__ import annotations

from functools import partial
from math import log

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.stiff_setup import GridSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.brusselator import Brusselator
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.operations import peak_bytes
from dyn_bench.protocols.solve import Solve, dyn_solve, values_of
from dyn_numerics import KrylovJacobian, Kvaerno5, Stepper

__all__ = ["newton_krylov"]

KRYLOV, DENSE = "Newton-Krylov", "dense Newton"
PRECONDITIONED = f"{KRYLOV}, preconditioned"


def newton_krylov(progress: Progress, setup: GridSetup) -> Outcome:
    """Solves the Brusselator by `Kvaerno5`, eager, float64, with either kind of linear algebra at equal tolerances.

    Args:
        progress: Where to show how far it is.
        setup: Numbers of points, end, tolerance.

    Returns:
        The ratio of times; the power of the number of points with which the bytes grow; what is known of each solve, and
        the peak of all tensors at each number of points.
    """
    prepare = partial(_prepare, points=setup.points, end=setup.end)
    methods = _methods(setup.points)
    entries = {name: partial(prepare, solver=solver, tolerance=setup.tolerance) for name, solver in methods.items()}
    exact = values_of(prepare(solver=Kvaerno5(), tolerance=setup.tolerance / 1000))
    comparison = Comparison(f"Brusselator, {setup.points} points", exact)
    outcome = comparison.run(progress, entries, [Goal(PRECONDITIONED, DENSE, 1 / 3)], setup.repeats)
    peaks: dict[str, dict[str, int]] = {}
    for points in track(progress, setup.weighed, len(setup.weighed), "memory of Newton's method"):
        peaks[f"{points} points"] = {
            name: peak_bytes(_prepare(points, setup.weighed_end, solver, setup.tolerance).run)
            for name, solver in _methods(points).items()
        }
    first, *_, last = (record[PRECONDITIONED] for record in peaks.values())
    power = log(last / first) / log(setup.weighed[-1] / setup.weighed[0])
    growth = Measurement(f"Brusselator, {PRECONDITIONED}: bytes grow with this power of the points", power, high=1.1)
    return Outcome([*outcome.measurements, growth], {}, {**outcome.records, "newton_krylov_memory": peaks})


def _methods(points: int) -> dict[str, Stepper]:
    preconditioned = KrylovJacobian(preconditioner=Brusselator(points).precondition)
    return {
        DENSE: Kvaerno5(),
        KRYLOV: Kvaerno5(jac=KrylovJacobian()),
        PRECONDITIONED: Kvaerno5(jac=preconditioned),
    }


def _prepare(points: int, end: float, solver: Stepper, tolerance: float) -> Solve:
    problem = Brusselator(points)
    t = torch.tensor([0.0, end], dtype=torch.float64)
    return dyn_solve(problem, problem.x0, t, solver=solver, tolerance=tolerance)
