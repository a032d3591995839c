"""A network whose output is its fixed point, for inputs easy and hard."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

__all__ = ["EquilibriumNetwork"]


class EquilibriumNetwork(nn.Module):
    """One layer `h(z, x, gain) = tanh(gain W z + U x)`, the map of a small equilibrium model.

    The spectral norm of W is chosen, so that a sample with `gain * contraction < 1` has one fixed point, and plain
    iterations approach it at that rate at the slowest. W is symmetric: its spectral radius is its norm, and a sample of
    small input, on which the tangent is nearly the identity, is nearly as slow as that. There is no bias, which would be
    an input that no sample can make small.

    Args:
        width: Width of the state.
        input_width: Width of the input.
        contraction: Spectral norm of W, in (0, 1).
        seed: Seed of the weights; the global generator is left as it was.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
        >>> network = EquilibriumNetwork(width=8, input_width=4)
        >>> x, gain = network.inputs(count=20, hard=0.05)
        >>> network(torch.zeros(20, 8), x, gain).shape, int((gain > 1).sum())
        (torch.Size([20, 8]), 1)

    References:
        - S. Bai, J. Z. Kolter, V. Koltun: Deep equilibrium models, NeurIPS 2019.
        - E. Winston, J. Z. Kolter: Monotone operator equilibrium networks, NeurIPS 2020, for unique fixed points.
    """

    def __init__(self, width: int = 512, input_width: int = 512, contraction: float = 0.9, seed: int = 0) -> None:
        super().__init__()
        self.contraction = contraction
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(width, width, dtype=torch.float64, generator=generator)
        symmetric = drawn + drawn.T
        weight = contraction * symmetric / torch.linalg.matrix_norm(symmetric, 2)
        input_weight = torch.randn(width, input_width, dtype=torch.float64, generator=generator) / sqrt(input_width)
        self.weight = nn.Parameter(weight.to(torch.get_default_dtype()))
        self.input_weight = nn.Parameter(input_weight.to(torch.get_default_dtype()))

    def inputs(
        self, count: int, hard: float = 0.0, hard_contraction: float = 0.995, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draws inputs, some of which make the fixed point hard to find.

        Entries are normal, of size 1, or 0.01 for a hard sample, whose gain brings the norm of its iteration from
        `contraction` to `hard_contraction`.

        Args:
            count: Number of samples.
            hard: Share of hard samples, which lie anywhere among the others.
            hard_contraction: Spectral norm of `gain * W` for these.
            seed: Seed of the draws.

        Returns:
            Inputs `[count, input_width]` and gains `[count, 1]`, in the weights' dtype, where they are.
        """
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, self.input_weight.shape[1], dtype=torch.float64, generator=generator)
        is_hard = (torch.randperm(count, generator=generator) < round(hard * count)).unsqueeze(-1)
        gain = torch.where(is_hard, hard_contraction / self.contraction, 1.0)
        return torch.where(is_hard, 0.01 * x, x).to(self.weight), gain.to(self.weight)

    def forward(self, z: Tensor, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """The map at states `[batch, width]`, for inputs `[batch, input_width]` and gains, a number or `[batch, 1]`."""
        return torch.tanh(gain * (z @ self.weight.T) + x @ self.input_weight.T)
