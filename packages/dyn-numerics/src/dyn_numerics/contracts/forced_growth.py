"""Growth and decay with a known solution, at a rate that depends on time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["ForcedGrowth"]


class ForcedGrowth:
    """The linear problem `x' = x cos t`, whose errors fall at a steady rate however small they are.

    Attributes:
        starts: Four start states, `[4, 2]`.

    Example:
        >>> import torch
        >>> ForcedGrowth().exact(torch.tensor([0.0, math.pi / 2]), 0.0, torch.ones(1))
        tensor([[1.0000],
                [2.7183]])
    """

    starts: ClassVar[Sequence[Sequence[float]]] = [[1.0, 0.3], [-0.4, 0.5], [0.9, -0.7], [-0.2, -0.8]]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field, `[*lead, N]`, at times `[*lead]` and states `[*lead, N]`."""
        return x * torch.cos(t).unsqueeze(-1)

    def exact(self, t: Tensor, t0: float, x0: Tensor) -> Tensor:
        """The solution `[T, N]` at times `[T]`, from `x0`, `[N]`, at `t0`."""
        return x0 * torch.exp(torch.sin(t) - math.sin(t0)).unsqueeze(-1)
