"""Arenstorf's orbit: a satellite between earth and moon that comes back to where it started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["ARENSTORF_ORBIT", "RestrictedThreeBody"]


@dataclass(frozen=True)
class RestrictedThreeBody:
    """A satellite in the plane of earth and moon, in coordinates that turn with them: `x = (q1, q2, q1', q2')`.

    Earth and moon lie at `(-mu, 0)` and `(1 - mu, 0)`; lengths are in their distance, a month is `2 pi`.

    Args:
        mu: Mass of the moon as a share of both.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.arenstorf import RestrictedThreeBody
        >>> between = torch.tensor([0.0, 0.75**0.5, 0.0, 0.0], dtype=torch.float64)  # equally far from equal masses
        >>> bool(RestrictedThreeBody(mu=0.5)(torch.tensor(0.0), between).abs().max() < 1e-15)
        True

    References:
        - R. F. Arenstorf: Periodic solutions of the restricted three body problem representing analytic continuations
          of Keplerian elliptic motions, American Journal of Mathematics 85 (1963), 27-35.
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section II.0.
    """

    mu: float = 0.012277471

    def components(self, q1: Any, q2: Any, v1: Any, v2: Any) -> list[Any]:
        """The slopes of position and velocity, in arithmetic that any array library does."""
        to_earth, to_moon = q1 + self.mu, q1 - (1 - self.mu)
        earth = (1 - self.mu) / (to_earth**2 + q2**2) ** 1.5
        moon = self.mu / (to_moon**2 + q2**2) ** 1.5
        return [v1, v2, q1 + 2 * v2 - earth * to_earth - moon * to_moon, q2 - 2 * v1 - (earth + moon) * q2]

    def energy(self, x: Tensor) -> Tensor:
        """Jacobi's constant, `[...]`, of states `[..., 4]`: it stays the same along a solution."""
        q1, q2, v1, v2 = x.unbind(-1)
        earth = (1 - self.mu) / ((q1 + self.mu) ** 2 + q2**2).sqrt()
        moon = self.mu / ((q1 - (1 - self.mu)) ** 2 + q2**2).sqrt()
        return (v1**2 + v2**2 - q1**2 - q2**2) / 2 - earth - moon

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[..., 4]`."""
        return torch.stack(self.components(*x.unbind(-1)), -1)


ARENSTORF_ORBIT = ReferenceProblem(
    name="Arenstorf's orbit",
    field=RestrictedThreeBody(),
    start=(0.994, 0.0, 0.0, -2.0015851063790824),
    end=17.065216560157964,
    last=(0.994, 0.0, 0.0, -2.0015851063790824),
    source="Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section II.0: it closes, to 7e-11 in these numbers",
)
"""One period of the orbit: it passes close to the moon at both ends, and errors grow on the way, 3e6 times at most."""
