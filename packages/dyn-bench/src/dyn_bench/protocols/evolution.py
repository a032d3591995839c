"""Minimising what has no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["evolve"]


def evolve(
    cost: Callable[[Tensor], Tensor],
    start: Tensor,
    learning_rates: Iterable[float],
    *,
    pairs: int,
    spread: float,
    seed: int,
) -> Tensor:
    """Minimises a cost by an evolution strategy: Adam on the gradient that mirrored samples estimate.

    Args:
        cost: The costs `[2 * pairs]` of a population `[2 * pairs, n]`.
        start: Where to start, `[n]`.
        learning_rates: Adam's, one for every generation.
        pairs: Number of mirrored pairs in a generation.
        spread: Standard deviation of the population.
        seed: Seed of the samples.

    Returns:
        The last mean of the population, `[n]`.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.evolution import evolve
        >>> best = torch.tensor([1.0, -1.0])
        >>> cost = lambda x: (x - best).square().sum(-1)
        >>> found = evolve(cost, torch.zeros(2), [0.05] * 100, pairs=8, spread=0.1, seed=0)
        >>> bool((found - best).abs().max() < 0.05)
        True

    References:
        T. Salimans, J. Ho, X. Chen, S. Sidor, I. Sutskever: Evolution strategies as a scalable alternative to
        reinforcement learning (2017).
    """
    generator = torch.Generator().manual_seed(seed)
    mean = start.clone()
    optimizer = torch.optim.Adam([mean])
    for rate in learning_rates:
        offsets = torch.randn(pairs, *start.shape, dtype=start.dtype, generator=generator)
        costs = cost(torch.cat([mean + spread * offsets, mean - spread * offsets]))
        rises = (costs[:pairs] - costs[pairs:]) / (2 * spread)
        mean.grad = (rises.unsqueeze(-1) * offsets).mean(0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return mean
