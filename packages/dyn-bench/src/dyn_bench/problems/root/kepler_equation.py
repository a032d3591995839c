"""Kepler's equation: where a planet is on its orbit."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from dyn_bench.problems.root.contraction import Contraction

__all__ = ["kepler_equation"]


def _kepler(z: Tensor, mean_anomaly: Tensor, eccentricity: Tensor) -> Tensor:
    return mean_anomaly + eccentricity * torch.sin(z)


def kepler_equation(count: int, seed: int = 0) -> Contraction:
    """Draws equations `E = M + e sin E` for the eccentric anomaly `E`, elementwise.

    `E` is uniform in [-pi, pi] and `e` in [0.1, 0.9]; the mean anomaly `M`, where iterations start, follows from them.
    The rate is `|e cos E|`: anything between 0 and `e`.

    Args:
        count: Number of samples.
        seed: Seed of the draws.

    Returns:
        The equations as one problem, in float64.

    Example:
        >>> from dyn_bench.problems.root.kepler_equation import kepler_equation
        >>> problem = kepler_equation(count=1000)
        >>> mean_anomaly, eccentricity = problem.args
        >>> mean_anomaly.shape, bool((problem.rate <= eccentricity.squeeze(-1)).all())
        (torch.Size([1000, 1]), True)

    References:
        J. Kepler: Astronomia nova (1609), chapter 60.
    """
    u = torch.rand(2, count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    anomaly, eccentricity = pi * (2 * u[0] - 1), 0.1 + 0.8 * u[1]
    mean_anomaly = anomaly - eccentricity * anomaly.sin()
    rate = (eccentricity * anomaly.cos()).abs().squeeze(-1)
    return Contraction("Kepler", _kepler, (mean_anomaly, eccentricity), mean_anomaly, anomaly, rate)
