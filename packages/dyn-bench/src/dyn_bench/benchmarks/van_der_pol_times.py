"""Van der Pol's oscillator, solved by this library and by its peers."""

from __future__ import annotations

from functools import partial

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.diffrax import diffrax_solve
from dyn_bench.peers.torchdiffeq import torchdiffeq_solve
from dyn_bench.peers.torchode import torchode_solve
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.solve import dyn_solve, values_of

__all__ = ["van_der_pol_times"]

EAGER = [Goal("eager joint", "torchdiffeq", 0.4), Goal("eager per sample", "torchode", 0.7)]


def van_der_pol_times(
    progress: Progress,
    setup: Setup,
    *,
    outputs: int,
    share: float,
    eager: bool = False,
    first_calls: bool = False,
) -> Outcome:
    """Times `mu = 2` from normal initial states, float32, by dopri5 at equal tolerances.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, tolerance, rounds.
        outputs: Number of output times, evenly spaced.
        share: Which share of the time of torchdiffeq and torchode a compiled solve is to need at most.
        eager: Whether eager solves are held against their goals too.
        first_calls: Whether the seconds of first calls are held against their goal too.

    Returns:
        The ratios of times, and the seconds if they were wanted; what is known of each solve.
    """
    torch.compiler.reset()
    field = VanDerPol(mu=2.0)
    x0, t, tolerance = setup.initial_states(torch.float32), setup.times(outputs), setup.tolerance
    exact = dyn_solve(field, x0.double(), t, tolerance=1e-11)
    solve = partial(dyn_solve, field, x0, t, tolerance=tolerance)
    diffrax = partial(diffrax_solve, field.components, x0, t, tolerance=tolerance)
    entries = {
        "torchdiffeq": partial(torchdiffeq_solve, field, x0, t, tolerance=tolerance),
        "torchode": partial(torchode_solve, field, x0, t, tolerance=tolerance),
        "diffrax joint": diffrax,
        "diffrax per sample": partial(diffrax, stepping="per_sample"),
        "compiled joint": partial(solve, compiled=True),
        "compiled per sample": partial(solve, stepping="per_sample", compiled=True),
    }
    if eager:
        entries |= {"eager joint": solve, "eager per sample": partial(solve, stepping="per_sample")}
    goals = EAGER if eager else []
    for way in ("joint", "per sample"):
        goals = [
            *goals,
            Goal(f"compiled {way}", "torchdiffeq", share),
            Goal(f"compiled {way}", "torchode", share),
            Goal(f"compiled {way}", f"diffrax {way}", 1.2),
        ]
    timed_first = ["compiled joint", "compiled per sample"] if first_calls else []
    comparison = Comparison(f"Van der Pol, {outputs} outputs", values_of(exact))
    return comparison.run(progress, entries, goals, setup.repeats, timed_first)
