"""Equations with a known root that every method finds, fixed-point iterations too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["SineSystem"]

ROOT = [0.5, -0.8, 1.2]
COUPLING = [0.4, -0.3, 0.5]


class SineSystem:
    """Three equations `z* - z + w sin(y) = w sin(y*)` with the root `z*`, where `y` holds the unknowns in another order.

    Each unknown stands in its own equation and, in the sine, in the one before. As the weights `w` are at most 1/2, the
    residual is `h(z) - z` for a contraction `h`, at that rate. The root of complex starts is complex.

    Args:
        coupled: With False each unknown stands in one equation alone, as methods need that look at signs.

    Attributes:
        starts: Five starts, `[5, 3]`.

    Example:
        >>> import torch
        >>> system = SineSystem()
        >>> z0 = torch.tensor(system.starts)
        >>> system(system.root(z0)).abs().max().item()
        0.0
    """

    starts: ClassVar[Sequence[Sequence[float]]] = [
        [1.0, 0.0, 0.5],
        [0.0, -1.5, 2.0],
        [0.9, -0.2, 1.6],
        [-0.3, -1.1, 0.4],
        [0.6, -0.6, 1.0],
    ]

    def __init__(self, coupled: bool = True) -> None:
        self.coupled = coupled

    def __call__(self, z: Tensor) -> Tensor:
        """The residual, `[batch, 3]`, of iterates `[batch, 3]`."""
        root = self.root(z)
        change = torch.sin(z) - torch.sin(root)
        if self.coupled:
            change = change.roll(-1, dims=-1)
        return root - z + torch.tensor(COUPLING, dtype=z.dtype, device=z.device) * change

    def root(self, z0: Tensor) -> Tensor:
        """The root, once for each start, `[batch, 3]`."""
        root = torch.tensor(ROOT, dtype=z0.dtype, device=z0.device)
        return (root * (1 + 0.2j) if z0.is_complex() else root).expand_as(z0)
