"""Equilibrium layers whose fixed points are looked for, easy and hard."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALIKE", "MIXED", "SLOW", "EquilibriumSetup"]


@dataclass(frozen=True)
class EquilibriumSetup:
    """The settings of an `EquilibriumNetwork`, its inputs, and the search for its fixed points.

    Args:
        title: What it is called.
        width: Width of state and input.
        batch: Number of samples.
        contraction: Spectral norm of the weights.
        hard: Share of hard samples.
        hard_contraction: Contraction of these.
        residual: The largest residual of a sample, relative to the map's value.
        anderson_iterations: Limit of torchdeq's Anderson iterations.
        broyden_iterations: Limit of torchdeq's Broyden iterations, which is its memory too.
        repeats: Rounds in which all solves are timed.
        seed: Seed of weights and inputs.
    """

    title: str
    width: int = 512
    batch: int = 256
    contraction: float = 0.9
    hard: float = 0.0
    hard_contraction: float = 0.995
    residual: float = 1e-5
    anderson_iterations: int = 50
    broyden_iterations: int = 50
    repeats: int = 9
    seed: int = 0

    @property
    def is_mixed(self) -> bool:
        """Whether some samples are hard and others are not."""
        return 0 < self.hard < 1


# torchdeq's limits are its own, 50, where these are enough.
ALIKE = EquilibriumSetup("equilibrium layer")
"""All samples alike, normal inputs: the plain iteration approaches fixed points at half the norm of the weights."""

SLOW = EquilibriumSetup(
    "equilibrium layer, slow",
    hard=1.0,
    hard_contraction=0.95,
    anderson_iterations=600,
    broyden_iterations=64,
    repeats=5,
)
"""All samples alike, small inputs: the plain iteration is as slow as the norm of the weights lets it be."""

MIXED = EquilibriumSetup(
    "equilibrium layer, 5 % hard", hard=0.05, anderson_iterations=400, broyden_iterations=100, repeats=5
)
"""One sample of twenty is hard."""
