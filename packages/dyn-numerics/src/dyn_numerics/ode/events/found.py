"""What is known of the events of a solve and of those of a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Flag, Scalar
from dyn_numerics.ode.stepper import Step

__all__ = ["Crossing", "EventMemory", "Found", "Happened", "Met", "Occurrence"]


class EventMemory(NamedTuple):
    """What a solve remembers of its events. Numbers are host numbers or tensors `[*lead]`.

    Attributes:
        signs: Sign of each condition since it was last zero; 0 while nobody knows.
        n_jumps: Jumps of each event so far.
        since: Time of the last jump of each event, or of the start.
        code: Code of the status with which the events ended the solve, that of success if they did not.
    """

    signs: tuple[Scalar, ...]
    n_jumps: tuple[Any, ...]
    since: tuple[Scalar, ...]
    code: Any


class Crossing(NamedTuple):
    """What a condition does in a step. Numbers are host numbers or tensors `[*lead]`.

    Attributes:
        crosses: Whether it crosses zero in the direction of its event.
        theta: Position of the zero in the step; 1 where there is none.
        low: Position from which its sign is known.
        before: Its sign before.
        last: Its value at the end of the step.
        after: The sign of that.
        is_nan: Whether it is NaN somewhere that counts.
    """

    crosses: Flag
    theta: Scalar
    low: Scalar
    before: Scalar
    last: Scalar
    after: Scalar
    is_nan: Flag


class Found(NamedTuple):
    """The events of a step, without gradient. Numbers are host numbers or tensors `[*lead]`.

    Attributes:
        at: Time of each event; the end of the step where it did not happen.
        thetas: Position of each in the whole step, which is finer than its time.
        happened: Whether each happened.
        jumped: Whether each changed the state.
        cut: Whether the step ends with an event.
        end: Where the step ends.
        theta: Position of the end in the whole step.
        whole: Where it would end without events.
    """

    at: tuple[Scalar, ...]
    thetas: tuple[Scalar, ...]
    happened: tuple[Flag, ...]
    jumped: tuple[Flag, ...]
    cut: Flag
    end: Scalar
    theta: Scalar
    whole: Scalar

    @classmethod
    def nothing(cls, t1: Tensor, n_events: int) -> Found:
        """What a step without events finds, which ends at `t1`, `[*lead]`."""
        never = (torch.zeros_like(t1, dtype=torch.bool),) * n_events
        last, ones = (t1,) * n_events, (torch.ones_like(t1),) * n_events
        return cls(last, ones, never, never, torch.zeros_like(t1, dtype=torch.bool), t1, torch.ones_like(t1), t1)


class Occurrence(NamedTuple):
    """One event of a step, with gradient.

    Attributes:
        happened: Whether it happened, a truth value or `[*lead]`.
        t: Its time.
        x: State there, `[*lead, N]`, before its jump.
        after: State after its jump.
    """

    happened: Flag
    t: Scalar
    x: Tensor
    after: Tensor


class Happened(NamedTuple):
    """What the events of a step make of it, with gradient.

    Attributes:
        end: Its end as a step would receive it.
        x: State there, `[*lead, N]`.
        interpolant: Its coefficients until then.
        after: State with which the solve goes on.
        refused: Where a jump led to a state that is not finite, and was not made.
        occurrences: The events in their order, None for one that did not happen.
    """

    end: Scalar
    x: Tensor
    interpolant: Tensor
    after: Tensor
    refused: Flag
    occurrences: tuple[Occurrence | None, ...]


class Met(NamedTuple):
    """A step in which something happened.

    Attributes:
        step: The step, until the first event that ends it.
        interpolant: Its coefficients.
        end: Its end as a step would receive it, with gradient.
        x: State with which the solve goes on, `[*lead, N]`.
        carry: The stepper's there.
        refused: Where a jump led to a state that is not finite, and was not made.
        occurrences: The events in their order, None for one that did not happen.
    """

    step: Step
    interpolant: Tensor
    end: Scalar
    x: Tensor
    carry: Any
    refused: Flag
    occurrences: tuple[Occurrence | None, ...]
