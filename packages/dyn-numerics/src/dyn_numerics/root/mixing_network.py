"""A small network that sees the last residuals and says how to mix them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dyn_numerics.arguments import positive_integer

__all__ = ["MixingNetwork"]


class MixingNetwork(nn.Module):
    """What `NeuralAnderson` asks by default: two layers on the angles and lengths of the last residuals.

    Of residuals of any shape it sees the cosines between them, the logarithms of their lengths over that of the newest, and
    how many there are: all that a least-squares problem for the weights depends on, and nothing of their units. So the same
    network serves states of any size. The last layer starts as zero: before training it says nothing. It computes in the
    dtype of its weights.

    Args:
        m: How many residuals there are at most.
        width: Of the hidden layer. There are `(m^2 + 2 m + 1) * width + (m + 1) * (width + 1)` parameters, 1350 for m = 5.

    Raises:
        ValueError: If an argument is not a positive integer.

    Example:
        >>> import torch
        >>> from dyn_numerics import MixingNetwork
        >>> MixingNetwork(m=3)(torch.randn(8, 3, 100), 2).shape
        torch.Size([8, 4])
    """

    def __init__(self, m: int, width: int = 32) -> None:
        super().__init__()
        m, width = positive_integer("m", m), positive_integer("width", width)
        self.hidden = nn.Linear(m * m + 2 * m, width)
        self.last = nn.Linear(width, m + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, residuals: Any, n: int | Tensor) -> Tensor:
        """What is added to the weights, and the logarithm of a factor of the damping: `[batch, m + 1]`.

        Args:
            residuals: A tensor or pytree of tensors, `[batch, m, ...]`, the newest first.
            n: How many there are; those behind are zero.
        """
        leaves = tree_leaves(residuals)
        batch, m = leaves[0].shape[:2]
        flat = torch.cat([leaf.reshape(batch, m, -1) for leaf in leaves], dim=-1)
        length = torch.linalg.vector_norm(flat, dim=-1)
        shown = (length > 0) & (torch.arange(m, device=flat.device) < n)
        length = torch.where(shown, length, 1)
        unit = torch.where(shown.unsqueeze(-1), flat / length.unsqueeze(-1), 0)
        growth = torch.where(shown, (length / length[:, :1]).log(), 0)
        seen = torch.cat([(unit @ unit.mT).flatten(1), growth, shown.to(flat.dtype)], dim=-1)
        said: Tensor = self.last(torch.tanh(self.hidden(seen.to(self.hidden.weight.dtype))))
        return said
