"""Fixed points of an equilibrium layer, found by this library and by torchdeq."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.equilibrium_setup import EquilibriumSetup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.torchdeq import torchdeq_fixed_point
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.equal_error import loosest_solve
from dyn_bench.protocols.root_solve import dyn_fixed_point
from dyn_bench.protocols.solve import Solve

__all__ = ["equilibrium_times", "hard_sample_times"]

METHODS: tuple[Literal["anderson", "broyden"], ...] = ("anderson", "broyden")
PER_DECADE = 16


def equilibrium_times(progress: Progress, setup: EquilibriumSetup) -> Outcome:
    """Holds times and evaluations of both methods against torchdeq's at equal residual, float32, without gradient.

    Args:
        progress: Where to show how far it is.
        setup: The layer, and the residual.

    Returns:
        The ratios of times and evaluations; what is known of each solve. Errors are residuals relative to the map's
        value, in float64, of what a solve returns.
    """
    times = [Goal(name, f"torchdeq {name}", 0.8) for name in METHODS]
    evaluations = [replace(goal, share=1.0) for goal in times]
    return _compare(progress, setup, times, evaluations)


def hard_sample_times(progress: Progress, setup: EquilibriumSetup) -> Outcome:
    """The same where some samples take longer than others, which leave the batch: times alone are compared.

    Args:
        progress: Where to show how far it is.
        setup: The layer, and the residual.
    """
    return _compare(progress, setup, [Goal(f"{name}, compact", f"torchdeq {name}", 0.5) for name in METHODS])


def _compare(
    progress: Progress, setup: EquilibriumSetup, times: Sequence[Goal], evaluations: Sequence[Goal] = ()
) -> Outcome:
    network = EquilibriumNetwork(setup.width, setup.width, setup.contraction, setup.seed)
    args = network.inputs(setup.batch, setup.hard, setup.hard_contraction, setup.seed)
    z0 = torch.zeros(setup.batch, setup.width)
    residual = partial(_relative_residual, deepcopy(network).double(), [arg.double() for arg in args])
    tolerances = [setup.residual * 10 ** (-i / PER_DECADE) for i in range(-PER_DECADE, PER_DECADE + 1)]
    iterations = {"anderson": setup.anderson_iterations, "broyden": setup.broyden_iterations}

    def at_equal_residual(solve: Callable[..., Solve]) -> Solve:
        def judged(tolerance: float) -> Solve:
            return solve(network, z0, tolerance=tolerance, args=args).judged(residual)

        return loosest_solve(judged, tolerances, setup.residual)

    entries = {}
    for name in METHODS:
        peer = partial(torchdeq_fixed_point, solver=name, max_iter=iterations[name])
        solve = partial(dyn_fixed_point, solver=name)
        entries[f"torchdeq {name}"] = partial(at_equal_residual, peer)
        entries[name] = partial(at_equal_residual, solve)
        if setup.is_mixed:
            entries[f"{name}, compact"] = partial(at_equal_residual, partial(solve, compact=True))
    comparison = Comparison(setup.title, torch.zeros(setup.batch))
    return comparison.run(progress, entries, times, setup.repeats, evaluations=evaluations)


def _relative_residual(h: Callable[..., Tensor], args: Sequence[Tensor], z: Tensor) -> Tensor:
    """`|h(z) - z| / |h(z)|` of every sample, `[batch]`."""
    with torch.no_grad():
        mapped = h(z.double(), *args)
    residual: Tensor = (mapped - z).norm(dim=-1) / mapped.norm(dim=-1)
    return residual
