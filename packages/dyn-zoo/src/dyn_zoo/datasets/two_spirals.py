"""Two interleaved spirals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from dyn_zoo.datasets._product_mixture import mixture_entropy, mixture_log_prob
from dyn_zoo.datasets._quadrature import gauss_legendre
from dyn_zoo.datasets.toy_distribution import ToyDistribution

_LAST_ANGLE = 3 * math.pi
_WIDTH = 0.5 / 3
_STD = 0.1


@dataclass(frozen=True)
class TwoSpirals(ToyDistribution):
    """Two arms of an Archimedean spiral, each the other turned by π.

    A point of the first arm (label 0) is (-θ cos θ + u₁/2, θ sin θ + u₂/2) / 3 plus Gaussian noise of
    standard deviation 0.1, with θ = 3π √u₀ and u₀, u₁, u₂ uniform on [0, 1]; the second arm (label 1) is the
    first mirrored at the origin. The density is the integral along the arms of the density of the two kinds
    of noise together, evaluated by Gauss-Legendre quadrature: for |x| up to 10 the relative error of log p
    is below 1e-9.

    Example:
        >>> data = TwoSpirals()
        >>> x, label = data.sample_labelled(1000, seed=0)
        >>> x.shape, label.unique().tolist()
        (torch.Size([1000, 2]), [0, 1])
        >>> print(f"{data.entropy:.3f} nats")
        2.645 nats

    References:
        W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD: free-form
        continuous dynamics for scalable reversible generative models, ICLR 2019, section 4.1; the constants
        are those of `2spirals` in the authors' `lib/toy_data.py`.
    """

    n_labels: ClassVar[int] = 2

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, by quadrature on a grid (error below 1e-9)."""
        return _entropy()

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        label = torch.randint(2, (n,), generator=generator, device="cpu")
        uniform = torch.rand(n, 3, generator=generator, device="cpu", dtype=torch.float64)
        noise = torch.randn(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        arm = _spiral(_LAST_ANGLE * uniform[:, 0].sqrt()) + _WIDTH * uniform[:, 1:]
        return (1 - 2 * label[:, None]) * arm + _STD * noise, label

    def _log_density(self, x: Tensor) -> Tensor:
        centres, weights = _arms()
        return mixture_log_prob(x, centres, weights.log(), _log_kernel)


def _spiral(angle: Tensor) -> Tensor:
    return torch.stack([-angle * angle.cos(), angle * angle.sin()], dim=-1) / 3


def _arms() -> tuple[Tensor, Tensor]:
    """Quadrature nodes `[k, 2]` on the middle lines of both arms and their weights `[k]`, with sum 1."""
    # Neighbouring nodes are at most 0.6 standard deviations apart, and closer at the ends, from where the
    # integrand falls off steeply when seen from far away.
    angle, weight = gauss_legendre(0.0, _LAST_ANGLE, spacing=0.02, end_spacing=0.002)
    middle = _spiral(angle) + _WIDTH / 2
    weight = weight * angle / _LAST_ANGLE**2  # θ has the density 2θ / (3π)², an arm the probability 1/2
    return torch.cat([middle, -middle]), weight.repeat(2)


def _log_kernel(offset: Tensor) -> Tensor:
    """Log density of a uniform variable on [-width/2, width/2] plus Gaussian noise, elementwise."""
    # (erfc(a) - erfc(b)) / (2 width) with erfc(a) = exp(-a²) erfcx(a), which is accurate relative to its size
    # however far out, as neither term underflows. a is bounded below, so erfcx(a) does not overflow either.
    a = (offset.abs() - _WIDTH / 2) / (_STD * math.sqrt(2))
    step = _WIDTH / (_STD * math.sqrt(2))  # b - a
    tails = torch.special.erfcx(a) - torch.exp(-step * (2 * a + step)) * torch.special.erfcx(a + step)
    log_kernel: Tensor = tails.log() - a**2 - math.log(2 * _WIDTH)
    return log_kernel


@lru_cache(maxsize=1)
def _entropy() -> float:
    centres, weights = _arms()
    return mixture_entropy(centres, weights, _log_kernel, reach=_WIDTH / 2 + 9 * _STD, spacing=_STD / 5)
