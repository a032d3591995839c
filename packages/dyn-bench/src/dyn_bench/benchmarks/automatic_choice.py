"""The steps of a method that is chosen as it goes, beside those of the better of two."""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.stiff_setup import OscillatorSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_numerics import PerSample, Status, odeint

__all__ = ["automatic_choice"]


def automatic_choice(progress: Progress, setup: OscillatorSetup) -> Outcome:
    """Counts the steps of every oscillator, solved per sample in float64, those of rejected attempts included.

    Args:
        progress: Where to show how far it is.
        setup: The oscillators, the tolerance, and the methods.

    Returns:
        The steps of the automatic method over those of the better of the two others: their mean over the oscillators, and
        the worst; the steps of each, by method.
    """
    mu = setup.mu
    t = torch.tensor([0.0, setup.end], dtype=torch.float64)
    x0 = torch.tensor([2.0, 0.0], dtype=torch.float64).repeat(setup.batch, 1)
    options: dict[str, Any] = {
        "rtol": setup.tolerance,
        "atol": setup.tolerance,
        "stepping": "per_sample",
        "compact": True,
    }
    steps: dict[str, Tensor] = {}
    # The implicit method goes first: where the explicit one takes more than all of its steps, it is not the better one.
    methods = (setup.implicit, setup.automatic, setup.explicit)
    for solver in track(progress, methods, len(methods), "automatic choice"):
        most = int(steps[setup.implicit].max()) + 1 if solver == setup.explicit else 10**6
        with torch.no_grad():
            solution = odeint(
                VanDerPol(mu=mu), x0, t, solver=solver, args=(PerSample(mu),), max_steps=most, throw=False, **options
            )
        reached = solution.status_code == Status.SUCCESS.code
        steps[solver] = torch.where(reached, solution.stats.n_steps.double(), inf)
    ratio = steps[setup.automatic] / torch.minimum(steps[setup.explicit], steps[setup.implicit])
    of = f"{setup.batch} Van der Pol: steps of {setup.automatic} / of the better of {setup.explicit} and {setup.implicit}"
    measurements = [
        Measurement(f"{of}, mean", ratio.mean().item(), high=1.3),
        Measurement(f"{of}, worst", ratio.max().item(), high=1.3),
    ]
    records = {"mu": mu.tolist()} | {
        solver: [int(n) if n < inf else None for n in counts] for solver, counts in steps.items()
    }
    return Outcome(measurements, {}, {"automatic_choice": records})
