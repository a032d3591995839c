"""Training steps of an equilibrium layer, by this library and by torchdeq."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.equilibrium_setup import EquilibriumSetup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.torchdeq import torchdeq_gradient
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.equal_error import loosest_solve
from dyn_bench.protocols.root_solve import dyn_fixed_point_gradient
from dyn_bench.protocols.solve import Solve, values_of

__all__ = ["equilibrium_gradients"]

PER_DECADE = 8
TIGHT = 1e-12
ERROR_OVER_RESIDUAL = 10


def equilibrium_gradients(progress: Progress, setup: EquilibriumSetup) -> Outcome:
    """Holds the time of a training step, search and gradient, against torchdeq's at equal error, float32.

    Args:
        progress: Where to show how far it is.
        setup: The layer. The error of a gradient, relative to it, is ten times the residual at most.

    Returns:
        The ratio of times where both search by Anderson's method; what is known of each step, torchdeq's by its own default,
        the plain iteration, among them. Errors are those of the gradient by the weights, relative to its norm.
    """
    network = EquilibriumNetwork(setup.width, setup.width, setup.contraction, setup.seed)
    args = network.inputs(setup.batch, setup.hard, setup.hard_contraction, setup.seed)
    z0 = torch.zeros(setup.batch, setup.width)
    target = torch.randn(z0.shape, generator=torch.Generator().manual_seed(setup.seed))

    def loss(z: Tensor) -> Tensor:
        return (z - target).square().mean()

    wide = dyn_fixed_point_gradient(
        deepcopy(network).double(), z0.double(), tolerance=TIGHT, loss=loss, args=[arg.double() for arg in args]
    )
    exact = values_of(wide)

    def error(gradient: Tensor) -> Tensor:
        relative: Tensor = (gradient.double() - exact).norm() / exact.norm()
        return relative

    tolerances = [setup.residual * 10 ** (-i / PER_DECADE) for i in range(-2 * PER_DECADE, PER_DECADE + 1)]

    def at_equal_error(step: Callable[..., Solve]) -> Solve:
        def judged(tolerance: float) -> Solve:
            return step(network, z0, tolerance=tolerance, loss=loss, args=args).judged(error)

        return loosest_solve(judged, tolerances, ERROR_OVER_RESIDUAL * setup.residual)

    steps: dict[str, Callable[..., Solve]] = {
        "torchdeq anderson": partial(torchdeq_gradient, solver="anderson", max_iter=setup.anderson_iterations),
        "torchdeq fixed_point_iter": partial(
            torchdeq_gradient, solver="fixed_point_iter", max_iter=setup.anderson_iterations
        ),
        "anderson": dyn_fixed_point_gradient,
        "anderson, bicgstab": partial(dyn_fixed_point_gradient, linear_solver="bicgstab"),
        "fixed_point": partial(dyn_fixed_point_gradient, solver="fixed_point", linear_solver="fixed_point"),
    }
    entries = {name: partial(at_equal_error, step) for name, step in steps.items()}
    comparison = Comparison(f"{setup.title}, training step", torch.zeros(()))
    return comparison.run(progress, entries, [Goal("anderson", "torchdeq anderson", 0.8)], setup.repeats)
