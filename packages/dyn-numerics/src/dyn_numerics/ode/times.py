"""Times: float64 inside, the state's own real dtype where they meet the state or the user's field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.scalar import Flag, Scalar, both, either, negate, where
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.ode.stops import StateJump, Stops
from dyn_numerics.transforms import without_transforms

__all__ = ["Clock", "host_numbers", "is_differentiable", "state_time", "time_dtype"]


def time_dtype(device: torch.device) -> torch.dtype:
    """The dtype of times and step sizes on a device: float64, or float32 where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def state_time(t: Scalar, x: Tensor) -> Tensor:
    """The time as `f` receives it: `[*lead]`, in the real dtype and on the device of the states `x`, `[*lead, N]`."""
    dtype = real_dtype(x.dtype)
    if isinstance(t, Tensor):
        return t.to(dtype=dtype, device=x.device)
    return torch.full((), t, dtype=dtype, device=x.device)


def host_numbers(t: Tensor) -> Any:
    """Times `[T, ...]` as nested lists of host numbers, in one read."""
    t = t.detach().cpu()
    try:
        return t.tolist()
    except RuntimeError:  # torch 2.8 lists no tensor that torch.func wraps, but reads its elements
        return [host_numbers(element) if element.dim() else element.item() for element in t]


def is_differentiable(t: Tensor) -> bool:
    """Whether somebody wants derivatives with respect to times, in reverse or forward mode."""
    compiling = torch.compiler.is_compiling()
    if (t if compiling else without_transforms(t)).requires_grad and torch.is_grad_enabled():  # also around a vmap
        return True
    return not compiling and forward_ad.unpack_dual(t).tangent is not None  # type: ignore[no-untyped-call]


class Clock:
    """The times that a solve starts from, must land on and ends with: host numbers, or tensors `[*lead]`.

    Control compares these. A step receives the same number, or, where gradients to the times are wanted, a tensor: the
    output time itself where the clock lands on it, and elsewhere the number plus the (zero) displacement of the start. So
    a step of chosen size moves along with the start, and one that lands on an output time depends on it.

    Args:
        times: Output times, without gradient: a list of host numbers, or a tensor `[T, *lead]`.
        step: Magnitude of the steps of a grid from the start, or None.
        lands_on_times: Whether the solve lands on every output time; otherwise it lands on the grid if there is one, and
            on the end.
        differentiable: The output times as a tensor `[T, *lead]` with gradient, or None when nobody wants it.

    Attributes:
        start: Start time.
        end: End of the solve.
        direction: 1.0 forward, -1.0 in reversed time.
        stops: Further times to land on, or None.
        has_jumped: Where the state at the start is that after a jump there.
    """

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        step: float | None,
        lands_on_times: bool,
        differentiable: Tensor | None = None,
    ) -> None:
        self.times, self.step, self.lands_on_times = times, step, lands_on_times
        self.differentiable = differentiable
        self.stops: Stops | None = None
        self.has_jumped: Flag = False
        self.start: Scalar = times[0]
        self.end: Scalar = times[-1]
        self.direction: Scalar
        if isinstance(times, Tensor):
            self.start, self.end = (
                times[0].clone(),
                times[-1].clone(),
            )  # a compiled loop refuses tensors that share memory
            self.direction = torch.where(self.end < self.start, -torch.ones_like(self.end), torch.ones_like(self.end))
        else:
            self.direction = -1.0 if self.end < self.start else 1.0

    def with_stops(self, times: Tensor | None, jumps: bool, jump: StateJump | None = None) -> Clock:
        """The same clock with further times to land on.

        Args:
            times: The times, float64 `[n]` or `[n, *lead]`, in any order; or None.
            jumps: Whether the field jumps there.
            jump: What becomes of the state there, or None where it goes on as it is.
        """
        twin = Clock(self.times, self.step, self.lands_on_times, self.differentiable)
        if times is not None and isinstance(self.start, Tensor):
            times = times.to(self.start)
            times = times.reshape(-1, *[1] * self.start.dim()) if times.dim() == 1 else times
            twin.stops = Stops(times.expand(-1, *self.start.shape), self.direction, jumps, jump)
        elif times is not None:
            twin.stops = Stops(host_numbers(times), self.direction, jumps, jump)
        return twin

    @property
    def has_grid(self) -> bool:
        """Whether there are times to land on before the end."""
        return self.lands_on_times or self.step is not None

    def target(self, reached: int | Tensor) -> Scalar:
        """The time to land on after so many targets have been reached."""
        if self.lands_on_times:
            return _at(self.times, reached + 1)
        if self.step is None:
            return self.end
        count = (reached + 1).to(self.times.dtype) if isinstance(reached, Tensor) else reached + 1  # type: ignore[union-attr]
        offset: Scalar = count * self.step
        left = (self.end - self.start) * self.direction - offset
        # A last step of rounding errors alone is left out.
        return where(left > 1e-10 * offset, self.start + self.direction * offset, self.end)

    def next_target(self, t: Scalar, reached: int | Tensor) -> Scalar:
        """The time to land on next: a target, or a stop before it.

        Args:
            t: The present time.
            reached: Number of targets that have been reached.
        """
        target = self.target(reached)
        return target if self.stops is None else self.stops.before(target, t)

    @property
    def jumps(self) -> bool:
        """Whether the field or the state jumps at the stops."""
        return self.stops is not None and (self.stops.jumps or self.stops.jump is not None)

    def beyond(self, t: Scalar, at: Scalar, x: Tensor, moved: Flag = True) -> tuple[Tensor, Flag]:
        """The states right after a time, `[*lead, N]`, and where something jumps then: at a stop, but not at the end.

        Args:
            t: The time, as control knows it.
            at: The same as differentiable as it is.
            x: The states there.
            moved: Where they are wanted.
        """
        if self.stops is None or not self.jumps:
            return x, False
        landed = both(both(moved, self.stops.hold(t)), t != self.end)
        return self.stops.beyond(at, x, landed), landed

    def beyond_start(self, x: Tensor) -> Tensor:
        """The states right after the start, `[*lead, N]`.

        Args:
            x: The states there.
        """
        return self.beyond(self.start, self.start, x, negate(self.has_jumped))[0]

    def sided(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor) -> FlatField:
        """The field as a step sees it, on one side of where it jumps.

        Args:
            f: The field on flat states.
            t0: Start of the step.
            t1: Its end.
            x: The state, `[*lead, N]`.
        """
        return f if self.stops is None else self.stops.sided(f, t0, t1, x)

    @property
    def first(self) -> Scalar:
        """The start as the first step receives it."""
        return self.start if self.differentiable is None else self.differentiable[0]

    def start_of_step(self, t: Scalar, reached: int | Tensor, shift: Scalar | None = None) -> Scalar:
        """The start of a step as the step receives it.

        Args:
            t: The start, as control knows it.
            reached: Number of targets that have been reached.
            shift: Zero, with the gradient with which the start moves; None if it moves with the clock.
        """
        if shift is not None:
            return t + shift
        marks = self.differentiable
        if marks is None:
            return t
        return _at(marks, reached) if self.lands_on_times else t + self.shift

    def end_of_step(self, t1: Scalar, reached: int | Tensor, shift: Scalar | None = None) -> Scalar:
        """The end of a step as the step receives it.

        Args:
            t1: The end, as control knows it.
            reached: Number of targets that had been reached before the step.
            shift: As in `start_of_step`: a step that does not end at a target moves as its start does.
        """
        marks = self.differentiable
        if marks is None:
            return t1 if shift is None else where(self._is_fixed(t1, reached), t1, t1 + shift)
        with_start = t1 + self.shift
        moved = with_start if shift is None else t1 + shift
        if self.lands_on_times:
            moved = where(t1 == self.target(reached), _at(marks, reached + 1), moved)
        elif self.step is not None:
            moved = where(t1 == self.target(reached), with_start, moved)
        if self.stops is not None:
            # A jump of the field stays where it is, whatever else is there; at a kink it makes no difference.
            moved = where(self.stops.hold(t1), t1, moved)
        return where(t1 == self.end, marks[-1], moved)

    def _is_fixed(self, t1: Scalar, reached: int | Tensor) -> Flag:
        """Whether a step that starts anywhere ends there."""
        at_target = t1 == self.target(reached)
        return at_target if self.stops is None else either(at_target, self.stops.hold(t1))

    @property
    def shift(self) -> Scalar:
        """Zero, with the gradient with which the start moves."""
        marks = self.differentiable
        return 0.0 * self.start if marks is None else marks[0] - marks[0].detach()

    def without_gradient(self) -> Clock:
        """The same clock for a loop that nobody differentiates."""
        twin = Clock(self.times, self.step, self.lands_on_times)
        twin.stops = None if self.stops is None else self.stops.without_gradient()
        twin.has_jumped = self.has_jumped
        return twin

    def take(self, samples: Tensor) -> Clock:
        """The clock of some of the samples, whose indices are `[m]`."""
        twin = Clock(self.times[:, samples], self.step, self.lands_on_times)  # type: ignore[call-overload]
        twin.stops = None if self.stops is None else self.stops.take(samples)
        twin.has_jumped = self.has_jumped[samples] if isinstance(self.has_jumped, Tensor) else self.has_jumped
        return twin


def _at(times: Sequence[float] | Tensor, index: int | Tensor) -> Scalar:
    """The time at an index, the last one beyond the end."""
    last = len(times) - 1
    if isinstance(index, Tensor):
        return times.gather(0, index.clamp(max=last).unsqueeze(0)).squeeze(0)  # type: ignore[union-attr]
    return times[min(index, last)]
