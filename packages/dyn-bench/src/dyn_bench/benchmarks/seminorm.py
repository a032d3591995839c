"""What an adjoint saves whose error leaves the parameters out."""

from __future__ import annotations

import torch
from rich.progress import Progress
from torch import nn

from dyn_bench.benchmarks.gradient_setup import SeminormSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_numerics import Seminorm
from dyn_sensitivity import Backsolve, compare_gradients

__all__ = ["seminorm_evaluations"]

NORMS = {"without the parameters": Seminorm(0, 1), "with them": Seminorm(0, 1, 2)}


def seminorm_evaluations(progress: Progress, setup: SeminormSetup) -> Outcome:
    """Counts evaluations of the backward solves of small neural ODEs, float64, with both norms.

    Args:
        progress: Where to show how far it is.
        setup: The networks, tolerances.

    Returns:
        The evaluations with the seminorm over those without, of all networks together; these and the largest errors.
    """
    records = {name: {"evaluations": 0, "largest_error": 0.0} for name in NORMS}
    for seed in track(progress, range(setup.networks), setup.networks, "norm of the adjoint"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Linear(setup.size, setup.width), nn.Tanh(), nn.Linear(setup.width, setup.size)
            ).double()
            x0 = torch.randn(setup.size, dtype=torch.float64)
        table = compare_gradients(
            lambda t, x, network=network: network(x),
            x0,
            [0.0, setup.end],
            loss=lambda solution: solution.x[-1].square().sum(),
            algorithms={name: Backsolve(norm=norm) for name, norm in NORMS.items()},
            rtol=setup.rtol,
            atol=setup.atol,
            repeats=1,
        )
        for row in table.rows:
            record = records[row.algorithm]
            record["evaluations"] += row.backward_evals
            record["largest_error"] = max(record["largest_error"], row.error)
    without, full = (records[name]["evaluations"] for name in NORMS)
    title = f"adjoint of {setup.networks} perceptrons, T = {setup.end:g}: backward evaluations, seminorm / norm"
    return Outcome([Measurement(title, without / full, high=0.55)], {}, {"seminorm": records})
