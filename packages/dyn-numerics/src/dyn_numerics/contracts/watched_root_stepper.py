"""A root stepper whose steps are written down."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from dyn_numerics.contracts.host_reads import HostReads
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["WatchedRootStepper", "WatchedStep"]


class WatchedStep(NamedTuple):
    """A step that was taken.

    Attributes:
        z: Where it started, `[batch, N]`.
        carry: What it was handed.
        context: What it was told.
        proposal: What it returned.
    """

    z: Tensor
    carry: Any
    context: Context
    proposal: Proposal


class WatchedRootStepper(RootStepper):
    """Steps as another method does, claims what it claims, and writes down what came and went.

    Args:
        stepper: The method.

    Attributes:
        steps: Its steps so far.
        given: The iterates and residuals that it was handed, each with a copy from then.
        reads: What its steps read on the host.

    Example:
        >>> import torch
        >>> from dyn_numerics import Newton, root_find
        >>> watched = WatchedRootStepper(Newton())
        >>> z, stats = root_find(lambda z: z**2 - 2, torch.ones(1, 1), solver=watched)
        >>> len(watched.steps) == stats.n_steps.item(), watched.reads
        (True, [])
    """

    def __init__(self, stepper: RootStepper) -> None:
        super().__init__()
        for claim in RootStepper.__annotations__:
            setattr(self, claim, getattr(stepper, claim))
        self.stepper = stepper
        self.steps: list[WatchedStep] = []
        self.given: list[tuple[Tensor, Tensor]] = []
        self.reads: list[str] = []

    def start(self, z: Any, *args: Any) -> Any:
        return self.stepper.start(z, *args)

    def init(self, z: Tensor, context: Context) -> Any:
        self._keep(z, context)
        return self.stepper.init(z, context)

    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        self._keep(z, context)
        with HostReads() as reads:
            proposal = self.stepper.step(f, z, carry, context)
        self.reads += reads.found
        self.steps.append(WatchedStep(z, carry, context, proposal))
        return proposal

    def _keep(self, z: Tensor, context: Context) -> None:
        self.given += [(tensor, tensor.clone()) for tensor in (z, context.value, context.norm)]
