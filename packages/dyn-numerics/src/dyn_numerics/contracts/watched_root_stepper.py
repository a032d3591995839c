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
        given: The iterates and residuals that it was handed, copies, each with what it is a copy of.
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
        return self.stepper.init(*self._copied(z, context))

    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        given, told = self._copied(z, context)
        with HostReads() as reads:
            proposal = self.stepper.step(f, given, carry, told)
        self.reads += reads.found
        self.steps.append(WatchedStep(z, carry, context, proposal))
        return proposal

    def _copied(self, z: Tensor, context: Context) -> tuple[Tensor, Context]:
        """What to hand on: the search goes on with its own, whatever is written into these."""
        own = z, context.value, context.norm
        copy = z.clone().requires_grad_(z.requires_grad), context.value.clone(), context.norm.clone()
        self.given += zip(copy, own, strict=True)
        return copy[0], context._replace(value=copy[1], norm=copy[2])
