"""Affine maps of given spectral radius."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dyn_bench.problems.root.contraction import Contraction

__all__ = ["affine_map"]


def _affine(z: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return (matrix @ z.unsqueeze(-1)).squeeze(-1) + offset


def affine_map(rates: Sequence[float], dim: int, departure: float = 0.0, seed: int = 0) -> Contraction:
    """Draws a map `z -> A z + b` for each rate, with eigenvalues from `-rate / 2` to `rate`, evenly spaced.

    Where A is normal, every iteration brings every state closer by the rate at least. Where it is not, iterates may move
    away at first and approach at the rate in the end alone.

    Args:
        rates: Spectral radii, one for each sample, each in [0, 1).
        dim: Number of unknowns, two at least.
        departure: Departure from normality: size of the random entries above the diagonal of the Schur form of A.
        seed: Seed of matrices and fixed points.

    Returns:
        The maps as one problem, in float64, which starts at 0.

    Example:
        >>> from dyn_bench.problems.root.affine_map import affine_map
        >>> problem = affine_map((0.5, 0.9), dim=4)
        >>> problem.start.shape, problem.rate
        (torch.Size([2, 4]), tensor([0.5000, 0.9000], dtype=torch.float64))

    References:
        P. Henrici: Bounds for iterates, inverses, spectral variation and fields of values of non-normal matrices,
        Numerische Mathematik 4 (1962), 24-40, for the departure from normality.
    """
    generator = torch.Generator().manual_seed(seed)
    rate = torch.tensor(rates, dtype=torch.float64)
    draws = torch.randn(3, len(rates), dim, dim, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(draws[0]).Q
    eigenvalues = rate[:, None] * torch.linspace(1, -0.5, dim, dtype=torch.float64)
    schur = torch.diag_embed(eigenvalues) + departure * draws[1].triu(1)
    matrix = basis @ schur @ basis.mT
    fixed_point = draws[2, :, 0]
    offset = fixed_point - _affine(fixed_point, matrix, torch.zeros_like(fixed_point))
    return Contraction(
        "affine" if departure == 0 else "affine, not normal",
        _affine,
        (matrix, offset),
        torch.zeros_like(fixed_point),
        fixed_point,
        rate,
    )
