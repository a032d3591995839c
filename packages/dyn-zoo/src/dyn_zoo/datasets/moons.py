"""Two interleaved half circles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from dyn_zoo.datasets._product_mixture import gaussian_log_kernel, mixture_entropy, mixture_log_prob
from dyn_zoo.datasets._quadrature import gauss_legendre
from dyn_zoo.datasets.toy_distribution import ToyDistribution

# The quadrature along the arcs costs a number of nodes in proportion to 1 / noise.
_SMALLEST_NOISE_WITH_DENSITY = 0.01


@dataclass(frozen=True)
class Moons(ToyDistribution):
    """Two interleaved half circles of radius 1 with Gaussian noise.

    Label 0 is the upper half circle (cos θ, sin θ), label 1 the lower one (1 - cos θ, 1/2 - sin θ), with θ
    uniform on [0, π]. The density is the integral of the noise's density along the arcs, evaluated by
    Gauss-Legendre quadrature: for |x| up to 10 the relative error of log p is below 1e-9.

    FFJORD and residual flows use 2x + (-1, -0.2) with noise 0.1, whose entropy is larger by 2 log 2.

    Args:
        noise: standard deviation of the noise in each coordinate, finite and not negative. Below 0.01 the
            density and the entropy are not available: `log_prob` raises NotImplementedError and `entropy` is
            None.

    Raises:
        TypeError: if `noise` is not a real number.
        ValueError: if `noise` is negative or not finite.

    Example:
        >>> data = Moons(noise=0.1)
        >>> x, label = data.sample_labelled(1000, seed=0)
        >>> x.shape, label.unique().tolist()
        (torch.Size([1000, 2]), [0, 1])
        >>> print(f"{data.entropy:.3f} nats")
        1.008 nats

    References:
        `sklearn.datasets.make_moons`, which places the points of each half circle evenly.
    """

    noise: float = 0.1

    n_labels: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if isinstance(self.noise, bool) or not isinstance(self.noise, (int, float)):
            raise TypeError(f"noise: got {self.noise!r} of type {type(self.noise).__name__}, expected a real number")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: got {self.noise}, expected a finite standard deviation of at least 0")

    @property
    def entropy(self) -> float | None:
        """Differential entropy in nats, by quadrature on a grid; None for noise below 0.01.

        The error is below 1e-9.
        """
        return None if self.noise < _SMALLEST_NOISE_WITH_DENSITY else _entropy(self.noise)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        label = torch.randint(2, (n,), generator=generator, device="cpu")
        angle = math.pi * torch.rand(n, generator=generator, device="cpu", dtype=torch.float64)
        noise = torch.randn(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        return torch.where(label[:, None] == 0, _upper(angle), _lower(angle)) + self.noise * noise, label

    def _log_density(self, x: Tensor) -> Tensor:
        if self.noise < _SMALLEST_NOISE_WITH_DENSITY:
            raise NotImplementedError(
                f"log_prob of Moons needs noise of at least {_SMALLEST_NOISE_WITH_DENSITY}, got {self.noise}"
            )
        centres, weights = _arcs(self.noise)
        return mixture_log_prob(x, centres, weights.log(), partial(gaussian_log_kernel, std=self.noise))


def _upper(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _lower(angle: Tensor) -> Tensor:
    return torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=-1)


def _arcs(noise: float) -> tuple[Tensor, Tensor]:
    """Quadrature nodes `[k, 2]` on both arcs and their weights `[k]`, with sum 1."""
    # Seen from a distance r of a centre, the integrand is a bump of width noise / √r in θ or, where its top
    # lies beyond the end of the arc, falls off from there at a rate of up to r / noise².
    angle, weight = gauss_legendre(0.0, math.pi, spacing=min(0.3 * noise, 0.1), end_spacing=0.2 * noise**2)
    return torch.cat([_upper(angle), _lower(angle)]), weight.repeat(2) / (2 * math.pi)


@lru_cache(maxsize=32)
def _entropy(noise: float) -> float:
    centres, weights = _arcs(noise)
    log_kernel = partial(gaussian_log_kernel, std=noise)
    return mixture_entropy(centres, weights, log_kernel, reach=9 * noise, spacing=noise / 5)
