"""The cosine, again and again."""

from __future__ import annotations

from math import sqrt

import torch

from dyn_bench.problems.root.contraction import Contraction

__all__ = ["cosine_map"]

FIXED_POINT = 0.7390851332151607
"""Where `cos z = z`: the number that a calculator shows in the end, whatever it showed at first."""


def cosine_map(count: int) -> Contraction:
    """The map `z -> cos z` of one unknown, elementwise, from starts that are evenly spaced in [-1, 1].

    Its rate is `sin z = sqrt(1 - z^2)` at the fixed point, 0.674; iterates alternate around it.

    Args:
        count: Number of samples.

    Returns:
        The problem, in float64.

    Example:
        >>> from dyn_bench.problems.root.cosine_map import cosine_map
        >>> problem = cosine_map(count=2)
        >>> problem.map(problem.fixed_point)
        tensor([[0.7391],
                [0.7391]], dtype=torch.float64)
    """
    start = torch.linspace(-1, 1, count, dtype=torch.float64).unsqueeze(-1)
    rate = torch.full((count,), sqrt(1 - FIXED_POINT**2), dtype=torch.float64)
    return Contraction("cosine", torch.cos, (), start, torch.full_like(start, FIXED_POINT), rate)
