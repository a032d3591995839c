"""The event that a state has come to rest."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.events.event import Event
from dyn_numerics.user_function import UserFunction

__all__ = ["SteadyState"]


class SteadyState(Event):
    """Ends a solve where the state hardly changes any more.

    That is where the root mean square of `|dx/dt| / (atol + rtol |x|)` over all elements has fallen to 1, for each sample under `stepping="per_sample"`. A state at rest from the start ends the
    solve there. The slope is that of the dense output, so that no further evaluation of `f` is needed (but for methods whose
    dense output has stages of its own, which evaluate these in every step).

    Both have to be well above what the tolerances of the solve leave of a slope, or it never seems to rest.

    Args:
        rtol: Relative rate of change, per time unit.
        atol: Absolute rate of change, in state units per time unit.

    Raises:
        TypeError: If one of them is no number.
        ValueError: If one is negative, or both are zero.

    Example:
        >>> import torch
        >>> from dyn_numerics import SteadyState, odeint
        >>> sol = odeint(lambda t, x: 1 - x, torch.zeros(1), [0.0, 1000.0], events=SteadyState(0.0, 1e-3), rtol=1e-6)
        >>> sol.status.name, round(sol.events[0].t.item(), 2), round(sol.events[0].x.item(), 3)
        ('EVENT', 6.91, 0.999)
    """

    sign_at_start = 1.0  # at rest from the start is at rest

    def __init__(self, rtol: float = 1e-3, atol: float = 1e-3) -> None:
        for name, value in (("rtol", rtol), ("atol", atol)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name}: got a {type(value).__name__}, expected a number")
            if not value >= 0:
                raise ValueError(f"{name}: got {value}, expected a number of at least 0")
        if rtol == atol == 0:
            raise ValueError("atol: got 0 with rtol=0, expected one of them to be positive")
        super().__init__(lambda t, x, *args: torch.full_like(t, torch.nan), direction=-1)
        self.rtol, self.atol = rtol, atol

    def measure(self, condition: UserFunction, t: Tensor, x: Tensor, slope: Callable[[], Tensor]) -> Any:
        wide = wide_dtype(x.dtype)
        scaled = slope().to(wide).abs() / (self.atol + self.rtol * x.to(wide).abs())
        return scaled.square().mean(dim=-1).sqrt() - 1
