"""The rows of a table that each problem keeps, without those of others."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.transforms import any_lane, under_transform

__all__ = ["OwnRows"]


class OwnRows:
    """Brings the rows that each problem keeps to the front, in their order; as many as the one that keeps most.

    Args:
        kept: Which rows each problem keeps, `[R, *lead]`.

    Attributes:
        kept: Which of the rows are its own then, `[n, *lead]`.
        n_whole: The rows before this one are kept by every problem.

    Example:
        >>> import torch
        >>> from dyn_numerics.ode.own_rows import OwnRows
        >>> own = OwnRows(torch.tensor([[True, False], [False, True], [True, False]]))
        >>> rows = torch.tensor([[1, 10], [2, 20], [3, 30]])
        >>> own.repeated(rows).tolist(), own.n_whole
        ([[1, 20], [3, 20]], 1)
    """

    def __init__(self, kept: Tensor) -> None:
        order = torch.argsort((~kept).to(torch.int8), dim=0, stable=True)
        kept, counts = kept.gather(0, order), kept.sum(0)
        if under_transform():
            n = next((i for i in range(len(kept)) if not any_lane(kept[i])), len(kept))
            n_whole = next((i for i in range(len(kept)) if any_lane(~kept[i])), len(kept))
        else:
            n, n_whole = torch.stack([counts.max(), counts.min()]).tolist() if kept.numel() else (len(kept),) * 2
        self.kept, self.n_whole = kept[:n], n_whole
        self._order, self._counts, self._is_whole = order[:n], counts, n_whole == len(kept)

    def of(self, rows: Tensor) -> Tensor:
        """Rows `[R, *lead, ...]` as `[n, *lead, ...]`; those that are not a problem's own mean nothing."""
        return rows if self._is_whole else _gather(rows, self._order)

    def repeated(self, rows: Tensor) -> Tensor:
        """As `of`, filled up with the last row of each problem, of which it has to have one."""
        if self._is_whole:
            return rows
        last = self._order.gather(0, (self._counts - 1).unsqueeze(0))
        return _gather(rows, torch.where(self.kept, self._order, last))


def _gather(rows: Tensor, order: Tensor) -> Tensor:
    inner = rows.shape[order.dim() :]
    return rows.gather(0, order.reshape(*order.shape, *[1] * len(inner)).expand(*order.shape, *inner))
