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

DENSE, KRYLOV = "dense Newton", "Newton-Krylov"


def newton_krylov(progress: Progress, setup: GridSetup) -> Outcome:
    """Solves the Brusselator by `Kvaerno5`, float64, with either kind of linear algebra at equal tolerances.

    Products are preconditioned by the inverse of the diffusion. They are many and small, so that they are compiled; full
    matrices are solved by LAPACK either way, and are timed both compiled and eager.

    Args:
        progress: Where to show how far it is.
        setup: Numbers of points, end, tolerance.

    Returns:
        The ratio of times; the power of the number of points with which the bytes grow; what is known of each solve, and
        the peak of all tensors at each number of points.
    """
    torch.compiler.reset()
    prepare = partial(_prepare, points=setup.points, end=setup.end, tolerance=setup.tolerance)
    methods = _methods(setup.points)
    krylov, eager = f"compiled {KRYLOV}" if setup.compiles else KRYLOV, DENSE
    entries = {eager: partial(prepare, solver=methods[DENSE])}
    if setup.compiles:
        entries[f"compiled {DENSE}"] = partial(prepare, solver=methods[DENSE], compiled=True)
    goals = [Goal(krylov, dense, 1 / 3) for dense in entries]
    entries[krylov] = partial(prepare, solver=methods[KRYLOV], compiled=setup.compiles)
    exact = values_of(_prepare(setup.points, setup.end, setup.tolerance / 1000, methods[DENSE]))
    comparison = Comparison(f"Brusselator, {setup.points} points", exact)
    outcome = comparison.run(progress, entries, goals, setup.repeats)
    peaks: dict[str, dict[str, int]] = {}
    for points in track(progress, setup.weighed, len(setup.weighed), "memory of Newton's method"):
        peaks[f"{points} points"] = {
            name: peak_bytes(_prepare(points, setup.weighed_end, setup.tolerance, solver).run)
            for name, solver in _methods(points).items()
        }
    first, *_, last = (record[KRYLOV] for record in peaks.values())
    power = log(last / first) / log(setup.weighed[-1] / setup.weighed[0])
    growth = Measurement(f"Brusselator, {KRYLOV}: bytes grow with this power of the points", power, high=1.1)
    return Outcome([*outcome.measurements, growth], {}, {**outcome.records, "newton_krylov_memory": peaks})


def _methods(points: int) -> dict[str, Stepper]:
    return {
        DENSE: Kvaerno5(),
        KRYLOV: Kvaerno5(jac=KrylovJacobian(accuracy=0.1, preconditioner=Brusselator(points).precondition)),
    }


def _prepare(points: int, end: float, tolerance: float, solver: Stepper, compiled: bool = False) -> Solve:
    problem = Brusselator(points)
    t = torch.tensor([0.0, end], dtype=torch.float64)
    return dyn_solve(problem, problem.x0, t, solver=solver, tolerance=tolerance, compiled=compiled, in_python=True)
