"""What the functions and modules of a solve hold that may want gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from dyn_numerics import Controller, Event
from dyn_numerics.ode.posed import Posed
from dyn_sensitivity.captured_tensors import captured_parameters, refuse_entangled

__all__ = ["event_functions", "held_parameters", "held_tensors"]


def event_functions(
    events: Event | Sequence[Event], controller: Controller | None = None
) -> dict[str, Callable[..., Any]]:
    """Conditions and jumps of events, and the jump at the stops of a controller, by the names that users know them by."""
    watched = (events,) if isinstance(events, Event) else events
    parts: dict[str, Callable[..., Any] | None] = {}
    for i, event in enumerate(watched):
        parts |= {f"events[{i}].condition": event.condition, f"events[{i}].jump": event.jump}
    if controller is not None:
        parts["controller.jump"] = controller.jump
    return {name: part for name, part in parts.items() if part is not None}


def held_parameters(holders: Iterable[Any], events: Event | Sequence[Event]) -> list[nn.Parameter]:
    """Lists the parameters that want gradients of whatever modules some functions and events are or hold.

    Args:
        holders: Functions and modules, anything else among them.
        events: What is watched for.
    """
    functions = [function for function in (*holders, *event_functions(events).values()) if callable(function)]
    return [parameter for function in functions for parameter in captured_parameters(function)]


def held_tensors(
    f: Callable[..., Any], posed: Posed, events: Event | Sequence[Event], params: Sequence[Tensor]
) -> list[Tensor]:
    """Lists everything beyond the arguments that wants gradients, each once: parameters of field, method, control and events.

    Args:
        f: The field.
        posed: The problem.
        events: What is watched for.
        params: Tensors that the user declared.

    Raises:
        ValueError: If the params were computed from each other.
    """
    held = held_parameters((f, posed.problem.stepper, posed.problem.controller), events)
    extra = list({id(p): p for p in (*held, *params) if p.requires_grad}.values())
    refuse_entangled([p for p in params if p.requires_grad], extra)
    return extra
