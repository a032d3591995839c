"""Compiled solves against eager ones: the same states, and one program for all times."""

from __future__ import annotations

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_bench.protocols.compilation import compile_whole, count_compilations
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_numerics import odeint

__all__ = ["agreement"]

ENDS = 20
DIFFERENCE = "compiled - eager, largest relative difference, float64"
COMPILATIONS = f"compilations over {ENDS} end times"


def agreement(progress: Progress, setup: Setup) -> Outcome:
    """Solves `mu = 2` per sample, in float64, to 20 ends that are given as tensors.

    Args:
        progress: Where to show how far it is.
        setup: Batch, the last of the ends, tolerance.

    Returns:
        The largest difference over all ends, relative to the largest state, and the number of programs compiled.
    """
    torch.compiler.reset()
    field, x0 = VanDerPol(mu=2.0), setup.initial_states(torch.float64)

    def solve(x0: Tensor, t: Tensor) -> Tensor:
        tolerance = setup.tolerance
        x: Tensor = odeint(field, x0, t, solver="dopri5", stepping="per_sample", rtol=tolerance, atol=tolerance).x
        return x

    try:
        compiled = compile_whole(solve)
    except UnavailableError as error:
        return Outcome(
            [
                Measurement(DIFFERENCE, None, high=1e-10, reason=str(error)),
                Measurement(COMPILATIONS, None, low=1, high=1, reason=str(error)),
            ],
            {},
        )
    differences = []

    def all_ends() -> None:
        ends = setup.times(ENDS + 1)[1:]
        for last in track(progress, ends, ENDS, "compiled and eager"):
            t = torch.linspace(0, 1, 5, dtype=torch.float64) * last
            expected = solve(x0, t)
            difference = (compiled(x0, t) - expected).abs().max() / expected.abs().max()
            differences.append(difference.item())

    with torch.no_grad():
        programs = count_compilations(all_ends)
    measurements = [
        Measurement(DIFFERENCE, torch.tensor(differences).max().item(), high=1e-10),
        Measurement(COMPILATIONS, programs, low=1, high=1),
    ]
    return Outcome(measurements, {}, {"differences": differences})
