"""Times that a solve lands on besides its outputs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.scalar import Flag, Scalar, magnitude, minimum, where
from dyn_numerics.ode.search import count_below

__all__ = ["Stops"]


class Stops:
    """Times to land on, of all problems or `[n, *lead]` of each.

    Args:
        times: The times, host numbers or a tensor `[n, *lead]`, in any order.
        direction: 1.0 forward, -1.0 in reversed time, or `[*lead]`.
        jumps: Whether the field jumps there.

    Attributes:
        jumps: Whether the field jumps there.
    """

    def __init__(self, times: Sequence[float] | Tensor, direction: Scalar, jumps: bool) -> None:
        self._direction, self.jumps = direction, jumps
        self._ahead: Any  # in the order of the solve: host numbers, or [*lead, n]
        if isinstance(times, Tensor):
            self._ahead = (times * direction).movedim(0, -1).sort(dim=-1).values.contiguous()
        else:
            self._ahead = sorted(direction * t for t in times)

    def take(self, samples: Tensor) -> Stops:
        """Those of some of the samples, whose indices are `[m]`."""
        twin = Stops((), self._direction[samples], self.jumps)  # type: ignore[index]
        twin._ahead = self._ahead[samples]
        return twin

    def before(self, target: Scalar, t: Scalar) -> Scalar:
        """The first stop after a time, or the target if that comes before."""
        ahead, direction = self._ahead, self._direction
        goal, now = target * direction, t * direction
        if isinstance(ahead, Tensor):
            following = count_below(ahead, now.unsqueeze(-1), including=True)  # type: ignore[union-attr]
            stop = torch.cat([ahead, torch.full_like(ahead[..., :1], inf)], dim=-1).gather(-1, following).squeeze(-1)
            return minimum(stop, goal) * direction
        i = bisect_right(ahead, now)
        return (min(ahead[i], goal) if i < len(ahead) else goal) * direction

    def hold(self, t: Scalar) -> Flag:
        """Whether a time is one of them."""
        now = t * self._direction
        return (self._ahead == now.unsqueeze(-1)).any(dim=-1) if isinstance(now, Tensor) else now in self._ahead

    def inside(self, t0: Scalar, t1: Scalar, ends: tuple[Scalar, Scalar], x: Tensor) -> tuple[Scalar, Scalar]:
        """The ends of a step as its method receives them: where the field jumps, on that side of it on which the step lies.

        They are so close to it that the field, which sees times in the dtype of the state, just tells the side.

        Args:
            t0: Start of the step, as control knows it.
            t1: Its end.
            ends: Both, as differentiable as they are.
            x: The state, `[*lead, N]`.
        """
        if not self.jumps:
            return ends
        info = torch.finfo(real_dtype(x.dtype))
        start, end = ends
        after, before = (self._direction * (info.eps * magnitude(t) + info.tiny) for t in (t0, t1))
        return where(self.hold(t0), start + after, start), where(self.hold(t1), end - before, end)
