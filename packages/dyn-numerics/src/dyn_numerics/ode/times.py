"""Times: float64 inside, the state's own real dtype where they meet the state or the user's field."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from dyn_numerics.ode.scalar import Scalar

__all__ = ["Clock", "host_numbers", "is_differentiable", "state_time", "time_dtype"]


def time_dtype(device: torch.device) -> torch.dtype:
    """The dtype of times and step sizes on a device: float64, or float32 where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def state_time(t: Scalar, x: Tensor) -> Tensor:
    """The time as `f` receives it: `[]`, in the real dtype and on the device of the state `x`."""
    dtype = x.dtype.to_real()
    if isinstance(t, Tensor):
        return t.to(dtype=dtype, device=x.device)
    return torch.full((), t, dtype=dtype, device=x.device)


def host_numbers(t: Tensor) -> list[float]:
    """Times `[T]` as host numbers, in one read."""
    t = t.detach().cpu()
    try:
        numbers: list[float] = t.tolist()
    except RuntimeError:  # torch 2.8 lists no tensor that torch.func wraps, but reads its elements
        numbers = [element.item() for element in t]
    return numbers


def is_differentiable(t: Tensor) -> bool:
    """Whether somebody wants derivatives with respect to times, in reverse or forward mode."""
    dual = unpack_dual(t)  # type: ignore[no-untyped-call]
    return (t.requires_grad and torch.is_grad_enabled()) or dual.tangent is not None


class Clock:
    """The times that a solve starts from and must land on, as host numbers and, for gradients, as tensors.

    Control compares host numbers. A step receives the same number, or, where gradients to the times are wanted, a
    tensor: the target itself at a target, and elsewhere the number plus the (zero) displacement of the start. So a step
    of chosen size moves along with the start, and one that lands on a target depends on it.

    Args:
        start: Start time.
        targets: Times to land on, in the order of the solve; none when the span has no length.
        differentiable: The start and the targets as tensors `[1 + len(targets)]`, or None when nobody wants gradients.

    Attributes:
        direction: 1.0 forward, -1.0 in reversed time.
    """

    def __init__(self, start: float, targets: Sequence[float], differentiable: Tensor | None) -> None:
        self.start = start
        self.targets = list(targets)
        self.direction = -1.0 if self.targets and self.targets[-1] < start else 1.0
        self._marks: dict[float, Tensor] | None = None
        if differentiable is not None:
            self._marks = dict(zip([start, *self.targets], differentiable.unbind(), strict=True))
            self._displacement = differentiable[0] - differentiable[0].detach()

    def at(self, t: float) -> Scalar:
        """The time that a step receives for the host number `t`."""
        if self._marks is None:
            return t
        mark = self._marks.get(t)
        return t + self._displacement if mark is None else mark
