"""The dark squares of a checkerboard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dyn_zoo.datasets.toy_distribution import ToyDistribution

_SIDE = 2.0
_LOG_AREA = math.log(8 * _SIDE**2)


@dataclass(frozen=True)
class Checkerboard(ToyDistribution):
    """The uniform distribution on the eight dark squares of a four-by-four checkerboard on [-4, 4]².

    A square has side 2, and the dark ones include the one at the lower left. Label 2i + j is the j-th dark
    square from below, from 0, of column i from the left. The entropy is log 32, the logarithm of the area.
    The density is 1/32 on the dark squares with their edges, and its gradient is not defined: `log_prob` is
    cut from autograd.

    Example:
        >>> data = Checkerboard()
        >>> x, label = data.sample_labelled(1000, seed=0)
        >>> x.shape, label.unique().tolist()
        (torch.Size([1000, 2]), [0, 1, 2, 3, 4, 5, 6, 7])
        >>> print(f"{data.entropy:.3f} nats")
        3.466 nats

    References:
        R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen, Residual flows for invertible generative
        modeling, NeurIPS 2019; the squares are those of `checkerboard` in the authors' `lib/toy_data.py`.
    """

    n_labels: ClassVar[int] = 8

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, log 32."""
        return _LOG_AREA

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        label = torch.randint(8, (n,), generator=generator, device="cpu")
        uniform = torch.rand(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        column = label // 2
        row = 2 * (label % 2) + column % 2
        return _SIDE * (torch.stack([column, row], dim=-1) - 2 + uniform), label

    def _log_density(self, x: Tensor) -> Tensor:
        board = x.detach() / _SIDE + 2  # [n, 2], in units of a square from the lower left corner
        inside = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # An edge belongs to the squares on both of its sides: rounding may put a sample on it.
        for column in (board[:, 0].floor(), board[:, 0].ceil() - 1):
            for row in (board[:, 1].floor(), board[:, 1].ceil() - 1):
                on_board = (column >= 0) & (column < 4) & (row >= 0) & (row < 4)
                inside |= on_board & ((column + row) % 2 == 0)
        log_prob = torch.full_like(board[:, 0], -math.inf).masked_fill(inside, -_LOG_AREA)
        return log_prob.masked_fill(board.isnan().any(dim=-1), math.nan)
