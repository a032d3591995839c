"""Van der Pol's oscillator in units of its slow phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["SCALED_VAN_DER_POL_TO_2", "ScaledVanDerPol"]


@dataclass(frozen=True, eq=False)
class ScaledVanDerPol:
    """`eps x'' = (1 - x^2) x' - x` as a field of `(x, x')`: the oscillator with `mu = eps^(-1/2)`, whose unit of time is `mu`.

    Args:
        eps: Positive: a number, or `[...]` for states `[..., 2]`; the smaller, the stiffer.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.scaled_van_der_pol import ScaledVanDerPol
        >>> ScaledVanDerPol(eps=0.25)(torch.tensor(0.0), torch.tensor([[2.0, 1.0]]))
        tensor([[  1., -20.]])

    References:
        Hairer, Wanner: Solving ODEs II, 2nd ed., section IV.10.
    """

    eps: float | Tensor

    def components(self, position: Any, velocity: Any, eps: Any = None) -> list[Any]:
        """The slopes of position and velocity, with another `eps` if there is one; arithmetic that any library does."""
        eps = self.eps if eps is None else eps
        return [velocity, ((1 - position * position) * velocity - position) / eps]

    def partials(self, position: Any, velocity: Any, eps: Any = None) -> list[list[Any]]:
        """The derivatives of both slopes by position and velocity, row by row, in the same arithmetic."""
        eps = self.eps if eps is None else eps
        return [[0.0, 1.0], [(-2 * position * velocity - 1) / eps, (1 - position * position) / eps]]

    def __call__(self, t: Tensor, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """The field at states `[..., 2]`, with another `eps`, `[...]`, if there is one."""
        return torch.stack(self.components(x[..., 0], x[..., 1], eps), -1)


SCALED_VAN_DER_POL_TO_2 = ReferenceProblem(
    name="Van der Pol, ε = 1e-6",
    field=ScaledVanDerPol(eps=1e-6),
    start=(2.0, 0.0),
    end=2.0,
    last=(1.706167732170483, -0.8928097010247975),
    source="Test Set for IVP Solvers, University of Bari",
)
"""The same solution as that of `mu = 1000` to 2000, in these units."""
