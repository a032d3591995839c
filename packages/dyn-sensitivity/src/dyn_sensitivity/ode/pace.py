"""One variable for samples whose times differ."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Pace"]


class Pace:
    """The times of samples as functions of one variable, which is `i` at their times number `i` and linear in between.

    So samples that pass different times are one problem still. A sample whose times repeat stands still.

    Args:
        t: Times `[T, batch]` in the dtype of times, each column in an order of its own.
        dtype: Real dtype of the state, in which a field sees times.
    """

    def __init__(self, t: Tensor, dtype: torch.dtype) -> None:
        self._t = t
        self._length = t.diff(dim=0)
        # The field may jump at a time: on every side it is seen from within.
        starts, ends = t[:-1].to(dtype), t[1:].to(dtype)
        starts, ends = torch.nextafter(starts, ends), torch.nextafter(ends, starts)
        self._low, self._high = torch.minimum(starts, ends), torch.maximum(starts, ends)

    @property
    def longest(self) -> float:
        """The greatest length between two times."""
        return self._length.abs().max().item()

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The times `[batch]` at a value `[]` of the variable, in the dtype of the state, and their rates."""
        at = s.detach().to(self._t.dtype)
        i = at.floor().clamp(0, len(self._length) - 1).long().reshape(1)
        start, length = self._t.index_select(0, i)[0], self._length.index_select(0, i)[0]
        low, high = self._low.index_select(0, i)[0], self._high.index_select(0, i)[0]
        t = (start + (at - i) * length).to(low.dtype)
        return torch.minimum(torch.maximum(t, low), high), length
