"""A batch of samples with steps of their own takes as many as its slowest."""

from __future__ import annotations

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_numerics import odeint

__all__ = ["slowest_sample"]


def slowest_sample(progress: Progress, setup: Setup) -> Outcome:
    """Holds the calls of the field by a batch of `mu = 25`, per sample, against those of its samples solved alone.

    They are 6 for each step, whoever takes it, and so count the rounds of the loop: a sample that waits takes no steps.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, tolerance; all is in float64.

    Returns:
        The ratio to the most calls; steps and calls of each.
    """
    field, t, tolerance = VanDerPol(mu=25.0), setup.times(2), setup.tolerance
    x0 = setup.initial_states(torch.float64)
    with torch.no_grad():
        together = odeint(field, x0, t, solver="dopri5", stepping="per_sample", rtol=tolerance, atol=tolerance).stats
        alone = [
            odeint(field, sample, t, solver="dopri5", rtol=tolerance, atol=tolerance).stats
            for sample in track(progress, x0, setup.batch, "Van der Pol, one by one")
        ]
    most = max(int(stats.n_evals) for stats in alone)
    ratio = int(together.n_evals) / most
    name = "Van der Pol, μ = 25: calls of the field / of the slowest alone"
    records = {
        "calls_together": int(together.n_evals),
        "most_calls_alone": most,
        "steps_together": together.n_steps.tolist(),
        "steps_alone": [int(stats.n_steps) for stats in alone],
    }
    return Outcome([Measurement(name, ratio, low=0.99, high=1.01)], {}, {"slowest_sample": records})
