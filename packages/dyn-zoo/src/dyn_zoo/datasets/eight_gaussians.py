"""Eight Gaussians on a circle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from dyn_zoo.datasets._product_mixture import gaussian_log_kernel, mixture_entropy, mixture_log_prob
from dyn_zoo.datasets.toy_distribution import ToyDistribution

_RADIUS = 4 / math.sqrt(2)
_STD = 0.5 / math.sqrt(2)


@dataclass(frozen=True)
class EightGaussians(ToyDistribution):
    """Eight equally likely Gaussians whose means lie evenly on a circle.

    Means on a circle of radius 4, standard deviation 0.5 in each coordinate, everything divided by √2. (The
    scripts of the literature divide by 1.414.) Label k belongs to the mean at angle kπ/4. The entropy is
    2.8316 nats.

    Example:
        >>> data = EightGaussians()
        >>> x, label = data.sample_labelled(1000, seed=0)
        >>> x.shape, label.unique().tolist()
        (torch.Size([1000, 2]), [0, 1, 2, 3, 4, 5, 6, 7])
        >>> print(f"{data.entropy:.3f} nats")
        2.832 nats

    References:
        W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD: free-form
        continuous dynamics for scalable reversible generative models, ICLR 2019, section 4.1; the constants
        are those of `8gaussians` in the authors' `lib/toy_data.py`.
    """

    n_labels: ClassVar[int] = 8

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, by quadrature on a grid (error below 1e-10)."""
        return _entropy()

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        label = torch.randint(8, (n,), generator=generator, device="cpu")
        noise = torch.randn(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        return _means()[label] + _STD * noise, label

    def _log_density(self, x: Tensor) -> Tensor:
        log_weights = torch.full((8,), -math.log(8), dtype=torch.float64, device="cpu")
        return mixture_log_prob(x, _means(), log_weights, partial(gaussian_log_kernel, std=_STD))


def _means() -> Tensor:
    angle = torch.arange(8, dtype=torch.float64, device="cpu") * (math.pi / 4)
    return _RADIUS * torch.stack([angle.cos(), angle.sin()], dim=-1)  # [8, 2]


@lru_cache(maxsize=1)
def _entropy() -> float:
    weights = torch.full((8,), 1 / 8, dtype=torch.float64, device="cpu")
    log_kernel = partial(gaussian_log_kernel, std=_STD)
    return mixture_entropy(_means(), weights, log_kernel, reach=9 * _STD, spacing=_STD / 10)
