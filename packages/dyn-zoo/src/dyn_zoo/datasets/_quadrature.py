"""Nodes and weights for integrals over an interval."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_NODES_PER_PANEL = 16


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # cached tensors must stay usable under autograd
def gauss_legendre(start: float, end: float, spacing: float, end_spacing: float) -> tuple[Tensor, Tensor]:
    """Composite Gauss-Legendre rule with 16 nodes to a panel and panels that shrink towards both ends.

    Args:
        start: lower end of the interval.
        end: upper end, above `start`.
        spacing: largest distance wanted between neighbouring nodes.
        end_spacing: the same in the panels at both ends, reached by halving, for integrands that fall off
            steeply from an end.

    Returns:
        Nodes and weights, each `[n]`, float64, on the CPU, shared between calls: not to be written to.

    References:
        G. H. Golub and J. H. Welsch, Calculation of Gauss quadrature rules, Math. Comp. 23 (1969), section 2:
        the nodes are the eigenvalues of the Jacobi matrix of the Legendre polynomials.
    """
    k = torch.arange(1, _NODES_PER_PANEL, dtype=torch.float64, device="cpu")
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    node, vector = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    weight = 2 * vector[0] ** 2  # on [-1, 1]

    # On [-1, 1] neighbouring nodes lie at most π / 16 apart, so at most half of that times the width here.
    widest = spacing * 2 * _NODES_PER_PANEL / math.pi
    n_panels = max(2, math.ceil((end - start) / widest))
    edges = torch.linspace(start, end, n_panels + 1, dtype=torch.float64, device="cpu")
    n_halvings = max(0, math.ceil(math.log2(spacing / end_spacing)))
    fractions = 0.5 ** torch.arange(n_halvings, 0, -1, dtype=torch.float64, device="cpu")
    near_start = start + (edges[1] - start) * fractions
    near_end = end - (end - edges[-2]) * fractions.flip(0)
    edges = torch.cat([edges[:1], near_start, edges[1:-1], near_end, edges[-1:]])

    middle, half_width = 0.5 * (edges[1:] + edges[:-1]), 0.5 * edges.diff()
    nodes = middle[:, None] + half_width[:, None] * node  # [panels, 16]
    weights = half_width[:, None] * weight
    return nodes.reshape(-1), weights.reshape(-1)
