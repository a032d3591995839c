"""What a solve is told to watch for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from dyn_numerics.user_function import UserFunction

__all__ = ["Event"]


class Event:
    """Happens where a condition changes its sign, and ends the solve, changes its state, or is only noted.

    The condition is looked at after every accepted step; where its sign has changed over the step, the first zero is
    found on the dense output, to the rounding of time and of the condition. One that only touches zero happens if the
    touch is at the end of a step; an even number of zeros within one step may be missed: try
    `PIDController(max_step=...)`. A condition that is zero at the start, or right after a jump, does not happen until it has
    left zero; a zero within the first 1e-5 of the step that follows (1e-3 in float32) counts as the one that was there.
    Events in one step happen in the order of their times, those at one time in the order in which they are given.

    Times and states of events are differentiable, also in the parameters of condition and jump, and so is all that follows
    them. The gradient is exact, and second derivatives are; a condition whose derivative in time is zero where it changes its sign is
    refused where gradients are wanted.

    Args:
        condition: A function `condition(t, x, *args)`, called as the field is; returns a real tensor of one element, or one
            for each sample under `stepping="per_sample"`, in any unit.
        terminal: Whether the solve ends at the event: the outputs that follow are NaN and the status is `Status.EVENT`. By
            default it does, unless the event has a jump.
        direction: 1: only where the condition rises, in the order of the solve; -1: only where it falls; 0: both.
        jump: A function `jump(t, x, *args)` that returns the state with which the solve goes on, in structure, shapes and
            dtypes of the state. An output at the very time of a jump is the state before it, and a jump at the very end of
            `t_span` is not made, by `Solution.resume` neither. One to a state that is not finite ends the solve there.
        max_jumps: Greatest number of jumps of this event, for a sample; the solve that needs more has the status
            `Status.TOO_MANY_JUMPS`. It guards against jumps that follow each other ever faster (Zeno).

    Raises:
        TypeError: If condition or jump cannot be called, or `terminal` is no truth value.
        ValueError: If the direction is none of -1, 0 and 1, `max_jumps` is less than 1, or the event has a jump and is
            terminal.

    Example:
        >>> import torch
        >>> from dyn_numerics import Event, odeint
        >>> ground = Event(lambda t, x: x[0], direction=-1, jump=lambda t, x: torch.stack([x[0], -0.8 * x[1]]))
        >>> def fall(t, x):
        ...     return torch.stack([x[1], torch.full_like(x[1], -9.81)])
        >>> sol = odeint(fall, torch.tensor([1.0, 0.0]), [0.0, 2.0], events=ground)
        >>> [round(t, 3) for t in sol.events[0].t.tolist()]
        [0.452, 1.174, 1.752]

    References:
        - L. F. Shampine, S. Thompson: Event location for ordinary differential equations, Comput. Math. Appl. 39 (2000),
          43-54.
        - R. T. Q. Chen, B. Amos, M. Nickel: Learning neural event functions for ordinary differential equations, ICLR 2021.
    """

    sign_at_start = 0.0  # nobody knows it before the condition has left zero

    def __init__(
        self,
        condition: Callable[..., Any],
        *,
        terminal: bool | None = None,
        direction: Literal[-1, 0, 1] = 0,
        jump: Callable[..., Any] | None = None,
        max_jumps: int = 1000,
    ) -> None:
        if not callable(condition):
            raise TypeError(f"condition: got a {type(condition).__name__}, expected a function of (t, x, *args)")
        if not (jump is None or callable(jump)):
            raise TypeError(f"jump: got a {type(jump).__name__}, expected a function of (t, x, *args), or None")
        if not (terminal is None or isinstance(terminal, bool)):
            raise TypeError(f"terminal: got a {type(terminal).__name__}, expected a truth value, or None")
        if direction not in (-1, 0, 1):
            raise ValueError(f"direction: got {direction!r}, expected 1 (rising), -1 (falling) or 0 (both)")
        if isinstance(max_jumps, bool) or not isinstance(max_jumps, int) or max_jumps < 1:
            raise ValueError(f"max_jumps: got {max_jumps!r}, expected an integer of at least 1")
        if terminal and jump is not None:
            raise ValueError(
                "terminal: got True for an event with a jump, which goes on after it; leave one of the two out"
            )
        self.condition, self.direction, self.jump, self.max_jumps = condition, direction, jump, max_jumps
        self.terminal = jump is None if terminal is None else terminal

    @property
    def cuts(self) -> bool:
        """Whether the step that holds the event ends there."""
        return self.terminal or self.jump is not None

    def measure(self, condition: UserFunction, t: Tensor, x: Tensor, slope: Callable[[], Tensor]) -> Any:
        """Evaluates the condition on flat states.

        Args:
            condition: The condition as a function of flat states.
            t: Time, `[*lead]`.
            x: State, `[*lead, N]`.
            slope: Makes the time derivative of the interpolated state, `[*lead, N]`.

        Returns:
            What the condition returns: one real element for each problem.
        """
        return condition.value(t, x)
