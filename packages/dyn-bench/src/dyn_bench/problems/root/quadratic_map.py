"""Quadratic maps of complex numbers."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from dyn_bench.problems.root.contraction import Contraction

__all__ = ["quadratic_map"]


def _quadratic(z: Tensor, offset: Tensor) -> Tensor:
    return z * z + offset


def quadratic_map(count: int, seed: int = 0) -> Contraction:
    """Draws maps `z -> z^2 + c` of complex numbers, elementwise, that end in a fixed point from the start 0.

    At the fixed point the derivative is `2 z`: of modulus uniform in [0.3, 0.95], which is the rate, and any angle, so
    that iterates turn around it.

    Args:
        count: Number of samples.
        seed: Seed of the draws.

    Returns:
        The maps as one problem, in complex128.

    Example:
        >>> from dyn_bench.problems.root.quadratic_map import quadratic_map
        >>> problem = quadratic_map(count=5)
        >>> bool(torch.allclose(2 * problem.fixed_point.abs().squeeze(-1), problem.rate))
        True

    References:
        J. Milnor: Dynamics in one complex variable, 3rd ed., theorem 8.6: the orbit of 0 ends in the fixed point.
    """
    u = torch.rand(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rate = 0.3 + 0.65 * u[0]
    fixed_point = (torch.polar(rate, 2 * pi * u[1]) / 2).unsqueeze(-1)
    return Contraction(
        "quadratic",
        _quadratic,
        (fixed_point - fixed_point * fixed_point,),
        torch.zeros_like(fixed_point),
        fixed_point,
        rate,
    )
