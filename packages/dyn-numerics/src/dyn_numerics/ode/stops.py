"""Times that a solve lands on besides its outputs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.scalar import Flag, Scalar, magnitude, minimum, where
from dyn_numerics.ode.search import count_below
from dyn_numerics.ode.split_field import Part
from dyn_numerics.ode.stepper import FlatField, in_loop
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane

__all__ = ["StateJump", "Stops"]


class StateJump(Protocol):
    """What becomes of states at given times."""

    def take(self, samples: Tensor, /) -> Self:
        """The jump of some of the samples, whose indices are `[m]`."""

    def __call__(self, t: Scalar, x: Tensor, /) -> Tensor:
        """The states right after a time, `[*lead, N]`.

        Args:
            t: The time, as control knows it where it has no gradient.
            x: The states there; they stay as they are.
        """


class Stops:
    """Times to land on, of all problems or `[n, *lead]` of each.

    Args:
        times: The times, host numbers or a tensor `[n, *lead]`, in any order.
        direction: 1.0 forward, -1.0 in reversed time, or `[*lead]`.
        jumps: Whether the field jumps there.
        jump: What becomes of the state there, or None where it goes on as it is.
        differentiable: Whether that is differentiated.

    Attributes:
        jumps: Whether the field jumps there.
        jump: What becomes of the state there.
    """

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        direction: Scalar,
        jumps: bool,
        jump: StateJump | None = None,
        differentiable: bool = True,
    ) -> None:
        self._direction, self.jumps, self.jump = direction, jumps, jump
        self._differentiable = differentiable
        self._ahead: Any  # in the order of the solve: host numbers, or [*lead, n]
        if isinstance(times, Tensor):
            self._ahead = (times * direction).movedim(0, -1).sort(dim=-1).values.contiguous()
        else:
            self._ahead = sorted(direction * t for t in times)

    def take(self, samples: Tensor) -> Stops:
        """Those of some of the samples, whose indices are `[m]`."""
        jump = None if self.jump is None else self.jump.take(samples)
        twin = Stops((), self._direction[samples], self.jumps, jump, self._differentiable)  # type: ignore[index]
        twin._ahead = self._ahead[samples]
        return twin

    def without_gradient(self) -> Stops:
        """The same in a loop that nobody differentiates."""
        twin = Stops((), self._direction, self.jumps, self.jump, differentiable=False)
        twin._ahead = self._ahead
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
        ahead, now = self._ahead, t * self._direction
        if isinstance(ahead, Tensor):
            at = count_below(ahead, now.unsqueeze(-1), including=False)  # type: ignore[union-attr]
            found = torch.cat([ahead, torch.full_like(ahead[..., :1], inf)], dim=-1).gather(-1, at).squeeze(-1)
            return found == now
        i = bisect_left(ahead, now)
        return i < len(ahead) and ahead[i] == now

    def beyond(self, t: Scalar, x: Tensor, landed: Flag) -> Tensor:
        """The states right after a time, `[*lead, N]`.

        Args:
            t: The time.
            x: The states there.
            landed: Where it is one of the times.
        """
        if self.jump is None or not (torch.compiler.is_compiling() or any_lane(landed)):
            return x
        if isinstance(landed, Tensor) and landed.dim():  # the jump meets only states for which it is wanted
            places = substitutes(landed)
            after = self.jump.take(places)(*substituted(places, (t, x)))
        else:
            after = self.jump(t, x)
        return where(landed, after if self._differentiable else after.detach(), x)

    def sided(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor) -> FlatField:
        """The field as a step sees it: where it jumps at an end of the step, at a time just within.

        So close that the field, which sees times in the dtype of the state, just tells the side.

        Args:
            f: The field on flat states.
            t0: Start of the step.
            t1: Its end.
            x: The state, `[*lead, N]`.
        """
        if not self.jumps:
            return f
        info = torch.finfo(real_dtype(x.dtype))
        direction = self._direction
        start, end = (t.detach() if isinstance(t, Tensor) else t for t in (t0, t1))
        starts, ends = self.hold(start), self.hold(end)
        if starts is False and ends is False:
            return f
        first = where(starts, start * direction + (info.eps * magnitude(start) + info.tiny), -inf)
        last = where(ends, end * direction - (info.eps * magnitude(end) + info.tiny), inf)

        return SidedField(f, first, last, direction)


class SidedField:
    """A field at times that are kept within bounds.

    Args:
        f: The field on flat states.
        first: The least time times the direction.
        last: The greatest one.
        direction: 1 or -1.
    """

    def __init__(self, f: FlatField, first: Scalar, last: Scalar, direction: Scalar) -> None:
        self._f, self._first, self._last, self._direction = f, first, last, direction

    @property
    def uncounted(self) -> SidedField:
        """The field without a counter."""
        return SidedField(in_loop(self._f), self._first, self._last, self._direction)

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        """Evaluates the field.

        Args:
            t: Time, `[*lead]`.
            x: State, `[*lead, N]`.
            *part: Part of a split field, if one is wanted alone.
        """
        low, high, sign = (
            torch.as_tensor(value, dtype=t.dtype, device=t.device)
            for value in (self._first, self._last, self._direction)
        )
        nearest = torch.minimum(torch.maximum(t.detach() * sign, low), high) * sign
        return self._f(t + (nearest - t).detach(), x, *part)
