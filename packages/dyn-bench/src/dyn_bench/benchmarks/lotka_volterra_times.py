"""Lotka and Volterra's equations from one initial state, where all of the time is overhead."""

from __future__ import annotations

from functools import partial

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.torchdiffeq import torchdiffeq_solve
from dyn_bench.problems.lotka_volterra import LotkaVolterra
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.solve import dyn_solve, values_of

__all__ = ["lotka_volterra_times"]


def lotka_volterra_times(progress: Progress, setup: Setup) -> Outcome:
    """Times solves from `(1, 1)`, float32, by dopri5 at equal tolerances, with outputs at start and end.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, tolerance, rounds.

    Returns:
        The ratio of times; what is known of each solve.
    """
    torch.compiler.reset()
    field = LotkaVolterra()
    x0, t, tolerance = torch.ones(setup.batch, 2), setup.times(2), setup.tolerance
    exact = dyn_solve(field, x0.double(), t, tolerance=1e-11)
    entries = {
        "torchdiffeq": partial(torchdiffeq_solve, field, x0, t, tolerance=tolerance),
        "compiled": partial(dyn_solve, field, x0, t, tolerance=tolerance, compiled=True),
    }
    goals = [Goal("compiled", "torchdiffeq", 1 / 130)]
    return Comparison("Lotka-Volterra", values_of(exact)).run(progress, entries, goals, setup.repeats)
