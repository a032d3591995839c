"""What an adjoint saves whose error leaves the parameters out."""

from __future__ import annotations

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.gradient_setup import SeminormSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.perceptron import Perceptron
from dyn_numerics import Seminorm
from dyn_sensitivity import Backsolve, compare_gradients

__all__ = ["seminorm_evaluations"]

NORMS = {"without the parameters": Seminorm(0, 1), "with them": Seminorm(0, 1, 2)}


def seminorm_evaluations(progress: Progress, setup: SeminormSetup) -> Outcome:
    """Counts evaluations of the backward solve of a small neural ODE, float64, with both norms.

    Args:
        progress: Where to show how far it is.
        setup: The network, its states, tolerances.

    Returns:
        The evaluations with the seminorm over those without; these and the errors of both gradients.
    """
    field = Perceptron(setup.width, setup.seed, setup.size).double()
    generator = torch.Generator().manual_seed(setup.seed)
    x0 = torch.randn(setup.batch, setup.size, generator=generator, dtype=torch.float64)
    (table,) = (
        compare_gradients(
            field,
            x0,
            [0.0, setup.end],
            loss=lambda solution: solution.x[-1].square().mean(),
            algorithms={name: Backsolve(norm=norm) for name, norm in NORMS.items()},
            rtol=setup.rtol,
            atol=setup.atol,
            repeats=1,
        )
        for _ in track(progress, [None], 1, "norm of the adjoint")
    )
    records = {row.algorithm: {"evaluations": row.backward_evals, "error": row.error} for row in table.rows}
    without, full = (records[name]["evaluations"] for name in NORMS)
    title = "adjoint of a perceptron, T = 10: backward evaluations, seminorm / norm"
    return Outcome([Measurement(title, without / full, high=0.55)], {}, {"seminorm": records})
