"""Gauss's quadrature, of the highest degree that so many nodes allow."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["gauss_legendre"]


@cache
def gauss_legendre(n: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights that integrate polynomials of degree below `2 n` over [0, 1] exactly.

    Args:
        n: Number of nodes, at least 1.

    Returns:
        The nodes, increasing, inside of (0, 1), and the weights, which add up to 1.

    Example:
        >>> nodes, weights = gauss_legendre(2)
        >>> round(sum(w * x**3 for x, w in zip(nodes, weights)), 12)
        0.25

    References:
        G. H. Golub, J. H. Welsch: Calculation of Gauss Quadrature Rules, Mathematics of Computation 23 (1969).
    """
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / torch.sqrt(4 * k**2 - 1)  # of the symmetric matrix of Legendre's recurrence, whose diagonal is zero
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return tuple(((nodes + 1) / 2).tolist()), tuple(vectors[0].square().tolist())
