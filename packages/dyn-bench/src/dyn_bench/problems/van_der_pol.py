"""Van der Pol's oscillator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["VAN_DER_POL_TO_2000", "VanDerPol"]


@dataclass(frozen=True, eq=False)
class VanDerPol:
    """`x'' = mu (1 - x^2) x' - x` as a field of `(x, x')`; the larger `mu`, the stiffer.

    Args:
        mu: Damping, positive: a number, or `[...]` for states `[..., 2]`.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.van_der_pol import VanDerPol
        >>> VanDerPol(mu=2.0)(torch.tensor(0.0), torch.tensor([[2.0, 1.0]]))
        tensor([[ 1., -8.]])

    References:
        - B. van der Pol: On relaxation-oscillations, Philosophical Magazine 2 (1926).
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section I.16.
    """

    mu: float | Tensor

    def components(self, position: Any, velocity: Any, mu: Any = None) -> list[Any]:
        """The slopes of position and velocity, with another `mu` if there is one; arithmetic that any library does."""
        mu = self.mu if mu is None else mu
        return [velocity, mu * (1 - position * position) * velocity - position]

    def partials(self, position: Any, velocity: Any, mu: Any = None) -> list[list[Any]]:
        """The derivatives of both slopes by position and velocity, row by row, in the same arithmetic."""
        mu = self.mu if mu is None else mu
        return [[0.0, 1.0], [-2 * mu * position * velocity - 1, mu * (1 - position * position)]]

    def __call__(self, t: Tensor, x: Tensor, mu: Tensor | None = None) -> Tensor:
        """The field at states `[..., 2]`, with another `mu`, `[...]`, if there is one."""
        return torch.stack(self.components(x[..., 0], x[..., 1], mu), -1)


VAN_DER_POL_TO_2000 = ReferenceProblem(
    name="Van der Pol, μ = 1000",
    field=VanDerPol(mu=1000.0),
    start=(2.0, 0.0),
    end=2000.0,
    last=(1.706167732170469, -0.0008928097010248125),
    source="Test Set for IVP Solvers, University of Bari",
)
"""A little more than a period, 1614, of slow phases between two jumps."""
