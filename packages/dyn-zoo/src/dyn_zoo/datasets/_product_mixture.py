"""Density and entropy of p(x) = Σ_k w_k κ(x₁ - c_k₁) κ(x₂ - c_k₂).

Curves with noise are of this form once the integral along the curve is replaced by quadrature nodes. On a
grid the density is then a matrix product, which makes the entropy cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

# Pairs of a point and a node that are evaluated at once: few enough to stay in a processor's cache.
_PAIRS_PER_CHUNK = 2**16


def gaussian_log_kernel(offset: Tensor, std: float) -> Tensor:
    """Log density of a centred normal variable with standard deviation `std`, elementwise."""
    return -0.5 * (offset / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


def mixture_log_prob(x: Tensor, centres: Tensor, log_weights: Tensor, log_kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Log density of the mixture.

    Args:
        x: points, `[n, 2]`.
        centres: `[k, 2]`.
        log_weights: `[k]`.
        log_kernel: log κ, elementwise.

    Returns:
        log p, `[n]`, in the dtype and on the device of `x`.
    """
    centres = centres.to(x.dtype).to(x.device)
    log_weights = log_weights.to(x.dtype).to(x.device)
    chunks = []
    for points in torch.split(x, max(1, _PAIRS_PER_CHUNK // len(centres))):
        offset = points[:, None, :] - centres  # [chunk, k, 2]
        chunks.append(torch.logsumexp(log_kernel(offset).sum(dim=-1) + log_weights, dim=-1))
    return torch.cat(chunks)


def mixture_entropy(
    centres: Tensor, weights: Tensor, log_kernel: Callable[[Tensor], Tensor], *, reach: float, spacing: float
) -> float:
    """Differential entropy of the mixture in nats, by the trapezoidal rule on a grid.

    The integrand is smooth and vanishes at the border, where the trapezoidal rule converges faster than any
    power of the spacing.

    Args:
        centres: `[k, 2]`, float64, on the CPU.
        weights: `[k]`, with sum 1.
        log_kernel: log κ, elementwise; κ symmetric.
        reach: distance beyond which κ is negligible.
        spacing: of the grid.

    Returns:
        The entropy.
    """
    kernels = []
    for axis in range(2):
        centre = centres[:, axis]
        grid = torch.arange(
            float(centre.min()) - reach,
            float(centre.max()) + reach,
            spacing,
            dtype=torch.float64,
            device="cpu",
        )
        kernels.append(log_kernel(grid[:, None] - centre).exp())  # [grid, k]
    p = (kernels[0] * weights) @ kernels[1].T  # [grid of axis 0, grid of axis 1]
    return -float(torch.special.xlogy(p, p).sum()) * spacing**2
