"""The condition of an event on flat states, and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.times import is_differentiable, state_time, time_dtype
from dyn_numerics.user_function import UserFunction

__all__ = ["Condition"]


class Condition:
    """The condition of an event along the solution over a step.

    Args:
        name: What it is called in messages.
        event: The event.
        function: Its condition on flat states.

    Attributes:
        name: What it is called in messages.
    """

    def __init__(self, name: str, event: Event, function: UserFunction) -> None:
        self.name, self._event, self._function = name, event, function

    def take(self, samples: Tensor) -> Condition:
        """The condition of some of the samples, whose indices are `[m]`."""
        return Condition(self.name, self._event, self._function.take(samples))

    def at(self, piece: Piece, theta: Scalar) -> Tensor:
        """The value at a position, `[*lead]` in the dtype of times, without derivative of any kind."""
        with torch.no_grad():
            return self._measure(piece, piece.time(theta), theta).detach()

    def is_differentiable(self, piece: Piece) -> bool:
        """Whether the value at the end of a step depends on anything that wants a gradient."""
        return is_differentiable(self._measure(piece, piece.t1, 1.0))

    def along(self, piece: Piece, t: Scalar) -> Tensor:
        """The value at a time, `[*lead]` in the dtype of times, as a differentiable function of it."""
        return self._measure(piece, t, piece.position(t))

    def _measure(self, piece: Piece, t: Scalar, theta: Scalar) -> Tensor:
        x = piece.state(theta)
        lead = x.shape[:-1]
        value = self._event.measure(self._function, state_time(t, x), x, lambda: piece.slope(theta))
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.name}: returned a {type(value).__name__}, expected a tensor")
        if not value.is_floating_point():
            raise TypeError(
                f"{self.name}: returned dtype {value.dtype}, expected a real one whose sign changes at the event"
            )
        if value.numel() != lead.numel() or value.shape[: len(lead)] != lead:
            each = f" for each sample, {list(lead)}" if lead else ""
            raise ValueError(
                f"{self.name}: returned shape {list(value.shape)}, expected one element{each}; "
                f"try a component such as x[..., 0], or several events"
            )
        return value.reshape(lead).to(time_dtype(value.device))
