"""Van der Pol's oscillator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["VanDerPol"]


@dataclass(frozen=True)
class VanDerPol:
    """`x'' = mu (1 - x^2) x' - x` as a field of `(x, x')`; the larger `mu`, the stiffer.

    Args:
        mu: Damping, positive.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.van_der_pol import VanDerPol
        >>> VanDerPol(mu=2.0)(torch.tensor(0.0), torch.tensor([[2.0, 1.0]]))
        tensor([[ 1., -8.]])

    References:
        - B. van der Pol: On relaxation-oscillations, Philosophical Magazine 2 (1926).
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section I.16.
    """

    mu: float

    def components(self, position: Any, velocity: Any) -> list[Any]:
        """The slopes of position and velocity, in arithmetic that any array library does."""
        return [velocity, self.mu * (1 - position * position) * velocity - position]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[..., 2]`."""
        return torch.stack(self.components(x[..., 0], x[..., 1]), -1)
