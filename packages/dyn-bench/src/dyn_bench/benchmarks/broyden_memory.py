"""What Broyden's method remembers, in bytes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dyn_bench.benchmarks.equilibrium_setup import EquilibriumSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.peers.torchdeq import torchdeq_fixed_point
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.protocols.operations import peak_bytes
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_numerics import Broyden, Proposal, fixed_point

__all__ = ["broyden_memory"]

MEMORIES = (4, 16, 64)
STEPS = 5


class Weighed(Broyden):
    """Broyden's method, which notes how large its memory becomes.

    Attributes:
        largest: Bytes of all tensors that a step has handed on, the most so far.
    """

    largest = 0

    def step(self, *args: Any) -> Proposal:
        proposal = super().step(*args)
        tensors = [leaf for leaf in tree_leaves(proposal.carry) if isinstance(leaf, Tensor)]
        self.largest = max(self.largest, sum(tensor.nbytes for tensor in tensors))
        return proposal


def broyden_memory(progress: Progress, setup: EquilibriumSetup) -> Outcome:
    """Weighs what a few steps on an equilibrium layer hand on, for several lengths of the memory.

    Args:
        progress: Where to show how far it is.
        setup: The layer, and the limit of torchdeq's iterations, for which its memory is.

    Returns:
        The bytes over those of `2 * memory * batch * width` numbers; these bytes, and the peak of all tensors during
        the steps, for torchdeq's method too.
    """
    network = EquilibriumNetwork(setup.width, setup.width, setup.contraction, setup.seed)
    args = network.inputs(setup.batch, setup.hard, setup.hard_contraction, setup.seed)
    z0 = torch.zeros(setup.batch, setup.width)
    measurements, records = [], {}
    for memory in track(progress, MEMORIES, len(MEMORIES), "memory of Broyden's method"):
        solver = Weighed(memory, update="bad", jacobian=-1.0)

        def search(solver: Broyden = solver) -> None:
            fixed_point(network, z0, solver=solver, args=args, rtol=1e-6, atol=0.0, max_steps=STEPS, throw=False)

        peak, bound = peak_bytes(search), 2 * memory * z0.nbytes
        name = f"Broyden, memory {memory}: bytes / those of 2 · memory · batch · width numbers"
        measurements.append(Measurement(name, solver.largest / bound, high=1.0))
        records[f"memory {memory}"] = {"bytes": solver.largest, "bound": bound, "peak_bytes": peak}
    with suppress(UnavailableError):  # nothing is held against it
        peer = torchdeq_fixed_point(
            network, z0, tolerance=setup.residual, solver="broyden", args=args, max_iter=setup.broyden_iterations
        )
        records[f"torchdeq, max_iter {setup.broyden_iterations}"] = {"peak_bytes": peak_bytes(peer.run)}
    return Outcome(measurements, {}, {"broyden_memory": records})
