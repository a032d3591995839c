"""Times that a solve must land on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.arguments import kind_of
from dyn_numerics.ode.controllers.controller import Controller, Verdict
from dyn_numerics.ode.controllers.pid import PIDController
from dyn_numerics.ode.scalar import Scalar

__all__ = ["StopAt"]


class StopAt(Controller):
    """Lands on given times, and otherwise steps as another controller says.

    A field that jumps or has a kink at known times (a switched control, a dose, data that are read in) costs an adaptive
    solver many rejected steps there, and a solver with fixed steps its order. A solve that lands on these times does not
    notice. With `jumps=True` the step before such a time sees the field as it is just before, and the one after as it is just
    after, whichever value the field has at the time itself. With `jump` the state itself changes there (a dose, a reset), which
    is cheaper than an `Event` and happens inside of `torch.compile` as well. Outputs and dense solution are those before
    the jump. One at the first time of a span happens right after it, and one at the last is left to what goes on from there, as
    `Solution.resume` does.

    Args:
        times: The times `[n]` in any order, numbers or a tensor; those outside the span are left out. Under
            `stepping="per_sample"` also `[n, batch]`, which may be filled up with repeated times.
        controller: The other controller; `PIDController()` by default. `FixedStep()` for steps on a grid, which then stop at
            the times as well.
        jumps: Whether the field itself jumps there, not only a derivative of it.
        jump: What becomes of the state there: a function `jump(t, x, *args)` that receives time, state and further arguments
            as the field does, and returns a state of the same structure and shapes. Whatever it depends on gets its gradient.

    Raises:
        TypeError: If `times` are no numbers, the controller is none, or `jump` is no function.
        ValueError: If a time is not finite, or requires a gradient, or the controller has stops of its own.

    Example:
        >>> import torch
        >>> from dyn_numerics import StopAt, odeint
        >>> def controlled(t, x):
        ...     return torch.where(t < 0.5, 1.0, -1.0) * torch.ones_like(x)
        >>> sol = odeint(controlled, torch.zeros(1), [0.0, 2.0], controller=StopAt([0.5], jumps=True))
        >>> round(sol.x[-1].item(), 6), sol.stats.n_rejected.item()
        (-1.0, 0)
        >>> doses = StopAt([0.0, 1.0, 2.0], jump=lambda t, x: x + 1)
        >>> sol = odeint(lambda t, x: -x, torch.zeros(1), [0.0, 0.5, 3.0], controller=doses, rtol=1e-6)
        >>> [round(x, 4) for x in sol.x.flatten().tolist()]
        [0.0, 0.6065, 0.553]
    """

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        controller: Controller | None = None,
        *,
        jumps: bool = False,
        jump: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        controller = PIDController() if controller is None else controller
        if not isinstance(controller, Controller):
            raise TypeError(f"controller: got {kind_of(controller)}, expected a dyn_numerics.Controller")
        if controller.stops is not None:
            raise ValueError(
                f"controller: got a {type(controller).__name__} with stops of its own; give one StopAt all times"
            )
        if not isinstance(jumps, bool):
            raise TypeError(f"jumps: got a {type(jumps).__name__}, expected a truth value")
        if not (jump is None or callable(jump)):
            raise TypeError(f"jump: got a {type(jump).__name__}, expected a function jump(t, x) of time and state")
        if isinstance(times, Tensor) and times.requires_grad:
            raise ValueError(
                "times: got a tensor that requires a gradient, expected fixed times; an Event(lambda t, x: t - time, "
                "jump=lambda t, x: x) has a gradient to its time"
            )
        try:
            found = torch.as_tensor(times)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"times: got {times!r:.60}, expected numbers, or a tensor [n]") from None
        if found.dim() not in (1, 2) or found.is_complex() or found.dtype is torch.bool:
            raise TypeError(f"times: got {times!r:.60}, expected numbers, or a tensor [n]")
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(found).all()):
            raise ValueError(f"times: got {found.tolist()}, expected finite ones")
        self.register_buffer("times", torch.as_tensor(times, dtype=torch.float64), persistent=False)
        self.controller = controller
        self.jumps = jumps
        self.__dict__["jump"] = jump  # a module is no part of the controller, which is not trained with it
        self.adaptive, self.differentiable = controller.adaptive, controller.differentiable
        self.first_step, self.norm = controller.first_step, controller.norm
        self.min_step, self.max_step = controller.min_step, controller.max_step

    @property
    def stops(self) -> Tensor:
        """The times, float64 `[n]` or `[n, batch]`."""
        return self.times  # type: ignore[return-value]

    def without_stops(self) -> Controller:
        return self.controller

    def extra_repr(self) -> str:
        jump = "" if self.jump is None else f", jump={self.jump!r}"
        return f"times={self.stops.tolist()}, jumps={self.jumps}{jump}"

    def init(self) -> Any:
        return self.controller.init()

    def judge(self, error: Scalar, error_order: int, memory: Any) -> Verdict:
        return self.controller.judge(error, error_order, memory)
