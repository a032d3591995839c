"""A small network as a field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Perceptron"]


class Perceptron(nn.Module):
    """A multilayer perceptron with two hidden layers and hyperbolic tangents, the field of a small neural ODE.

    Args:
        width: Width of the hidden layers.
        seed: Seed of the weights; the global generator is left as it was.
        size: Number of elements of a state.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.perceptron import Perceptron
        >>> Perceptron(width=8, seed=0)(torch.tensor(0.0), torch.zeros(5, 2)).shape
        torch.Size([5, 2])

    References:
        R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018.
    """

    def __init__(self, width: int = 64, seed: int = 0, size: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size)
            )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Slopes `[batch, size]` at states `[batch, size]`."""
        slope: Tensor = self.net(x)
        return slope
