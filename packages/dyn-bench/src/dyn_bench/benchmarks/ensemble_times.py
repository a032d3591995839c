"""Ensembles of stiff problems, solved by this library, by SciPy in a loop, and by diffrax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.stiff_setup import EnsembleSetup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.diffrax import diffrax_solve
from dyn_bench.peers.scipy import scipy_stiff_solve
from dyn_bench.problems.reaction_network import ReactionNetwork
from dyn_bench.problems.reference_problem import ReferenceProblem
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.equal_error import loosest_tolerance
from dyn_bench.protocols.solve import Solve, dyn_solve, values_of
from dyn_numerics import PerSample

__all__ = ["ensemble_times"]

TOLERANCES = [10 ** (-3 - i / 8) for i in range(57)]  # to 1e-10


def ensemble_times(
    progress: Progress, problem: ReferenceProblem, network: ReactionNetwork, setup: EnsembleSetup
) -> Outcome:
    """Times solves of perturbed rate constants, float64, each at the loosest tolerance at which every sample is good enough.

    Errors are held against a solve at a tolerance of 1e-11. What a sample's error is at a tolerance does not depend on
    whether a solve is compiled, so that the tolerance is looked for with eager ones.

    Args:
        progress: Where to show how far it is.
        problem: Where samples start, and the floor of tolerances and errors.
        network: The reactions.
        setup: The ensemble, and the error.

    Returns:
        The ratios of times, and the seconds of the first call; what is known of each solve.
    """
    torch.compiler.reset()
    rates = network.perturbed_rates(setup.batch, setup.spread, setup.seed)
    x0 = problem.x0.repeat(setup.batch, 1)
    t = torch.tensor([0.0, setup.end], dtype=torch.float64)
    peers: dict[str, Any] = {"x0": x0, "t": t, "floor": problem.floor, "args": rates}
    own = partial(dyn_solve, network, x0, t, floor=problem.floor, args=(PerSample(rates),), stepping="per_sample")
    own = partial(own, solver=setup.solver)
    exact = values_of(own(tolerance=1e-11))[-1]

    def error(x: Tensor) -> Tensor:
        largest: Tensor = ((x[-1] - exact).abs() / (problem.floor + exact.abs())).amax(-1)
        return largest

    tolerances: dict[str, float] = {}

    def at_equal_error(name: str, solve: Callable[..., Solve], timed: Callable[..., Solve] | None = None) -> Solve:
        found = loosest_tolerance(lambda tolerance: solve(tolerance=tolerance).judged(error), TOLERANCES, setup.error)
        tolerances[name] = found
        return (timed or solve)(tolerance=found).judged(error)

    name = f"compiled {setup.solver}"
    scipy = partial(scipy_stiff_solve, network.components, partials=network.partials, **peers)
    diffrax = partial(diffrax_solve, network.components, method="Kvaerno5", stepping="per_sample", **peers)
    entries = {
        "SciPy Radau": partial(at_equal_error, "SciPy Radau", scipy),
        "diffrax Kvaerno5": partial(at_equal_error, "diffrax Kvaerno5", diffrax),
        name: partial(at_equal_error, name, own, partial(own, compiled=True)),
    }
    goals = [Goal(name, "SciPy Radau", setup.of_scipy), Goal(name, "diffrax Kvaerno5", setup.of_diffrax)]
    comparison = Comparison(setup.title, torch.zeros(setup.batch))
    outcome = comparison.run(progress, entries, goals, setup.repeats, [name], first_call_s=setup.first_call_s)
    for entry, record in comparison.records.items():
        record["tolerance"] = tolerances[entry]
    return outcome
