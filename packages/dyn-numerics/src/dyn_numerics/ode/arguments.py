"""Checks of what the user passes to `odeint`: bad input is refused at once, by name, with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import pairwise
from math import inf, isfinite, ulp
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.arguments import constant, kind_of, positive, positive_integer
from dyn_numerics.dtypes import real_dtype, wide_dtype
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.controllers.fixed_step import FixedStep
from dyn_numerics.ode.controllers.pid import PIDController
from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.split_field import SplitField
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.times import host_numbers, time_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_vmap
from dyn_numerics.user_function import check_signature

__all__ = [
    "check_field",
    "check_step_size",
    "check_stops",
    "check_tolerance",
    "choose_controller",
    "flat_tolerance",
    "refuse_compiled",
    "step_limit",
    "time_span",
    "watched_events",
]

DEFAULT_MAX_STEPS = 100_000
MOST_FIXED_STEPS = 10**9


def check_field(f: Callable[..., Any], n_args: int, stepper: Stepper) -> None:
    """Refuses a field that does not go with a method, or cannot be called.

    Args:
        f: The field.
        n_args: Number of its extra arguments.
        stepper: The method.

    Raises:
        TypeError: If only one of them is split, or a signature does not take what it has to.
    """
    if isinstance(f, SplitField) != (stepper.split is not None):
        hints = {
            "partitioned": "SplitField(a, b) with dq/dt = a(t, p) and dp/dt = b(t, q), on a state (q, p)",
            "additive": "SplitField(a, b) with dx/dt = a(t, x) + b(t, x), where a is the stiff part",
        }
        if stepper.split is not None:
            raise TypeError(
                f"f: got {kind_of(f)}, expected a SplitField for {type(stepper).__name__}; try {hints[stepper.split]}"
            )
        raise TypeError(
            f"f: got a SplitField, expected one function or module f(t, x, *args) for {type(stepper).__name__}; give it the "
            f"whole field, or take a method that steps the parts, such as solver='verlet'"
        )
    if torch.compiler.is_compiling():
        return
    if not isinstance(f, SplitField):
        check_signature(f, n_args)
        return
    arguments = ("t, p", "t, q") if stepper.split == "partitioned" else ("t, x", "t, x")
    for name, part, takes in zip("ab", (f.a, f.b), arguments, strict=True):
        check_signature(part, n_args, f"f.{name}", "function", takes)


def time_span(
    t_span: Tensor | Sequence[float], layout: StateLayout, on_host: bool = True
) -> tuple[Tensor, Tensor, list[float]]:
    """Returns the output times as the user gets them back, in the dtype of times, and as host numbers.

    The user gets a tensor back in its own dtype, a sequence in the real dtype of the state, float32 at least.

    Args:
        t_span: Output times `[T]`, or `[T, batch]` where the state has samples.
        layout: Layout of the state.
        on_host: Whether their values may be read; if not, they are not checked, and there are no host numbers.

    Raises:
        TypeError: If `t_span` is neither a sequence of numbers nor a floating tensor.
        ValueError: If it is empty, of another shape, not finite, or neither strictly monotone nor of no length.
    """
    if isinstance(t_span, Tensor):
        if not t_span.is_floating_point():
            raise TypeError(f"t_span: got dtype {t_span.dtype}, expected a floating dtype; try t_span.double()")
        given = t_span.to(layout.device)
    else:
        given = _stack_times(t_span, layout)
    if given.dim() == 2 and layout.lead:
        if given.shape[1:] != layout.lead:
            raise ValueError(
                f"t_span: got {given.shape[1]} columns, expected one for each of the {layout.lead[0]} samples"
            )
    elif given.dim() != 1:
        expected = "[T] or [T, batch]" if layout.lead else "one dimension [T]"
        hint = "; try stepping='per_sample'" if given.dim() == 2 and not layout.lead else ""
        raise ValueError(f"t_span: got shape {list(given.shape)}, expected {expected}{hint}")
    inner = given.to(time_dtype(layout.device))
    if not len(inner):
        raise ValueError("t_span: got no times, expected at least one, such as (0.0, 1.0)")
    times: list[float] = []
    if on_host:
        times = host_numbers(inner)
        if inner.dim() == 1:
            _check_times(times, "")
        else:
            for i, column in enumerate(zip(*times, strict=True)):
                _check_times(_without_repeated_end(column), f" for sample {i}")
    if isinstance(t_span, Tensor):
        return given.clone(), inner, times  # the user may write into one of them
    return given.to(wide_dtype(real_dtype(layout.dtype))), inner, times


def _stack_times(t_span: Sequence[float], layout: StateLayout) -> Tensor:
    dtype, device = time_dtype(layout.device), layout.device
    try:
        entries = [] if isinstance(t_span, (str, bytes, Set, Mapping)) else list(t_span)
        if isinstance(t_span, (str, bytes, Set, Mapping)) or any(isinstance(t, str) for t in entries):
            raise TypeError
        if any(isinstance(t, Tensor) for t in entries):
            return torch.stack([torch.as_tensor(t, dtype=dtype, device=device) for t in entries])
        return torch.tensor([float(t) for t in entries], dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"t_span: got {t_span!r}, expected a sequence of times or a tensor [T], such as (0.0, 1.0)"
        ) from None


def _without_repeated_end(times: Sequence[float]) -> list[float]:
    """The times of a span of its own, without the repetitions of its end that pad it."""
    kept = list(times)
    while len(kept) > 1 and kept[-1] == kept[-2]:
        kept.pop()
    return kept


def _check_times(times: list[float], whose: str) -> None:
    if not all(isfinite(t) for t in times):
        raise ValueError(f"t_span: got {next(t for t in times if not isfinite(t))}{whose}, expected finite times")
    if not isfinite(times[-1] - times[0]):
        raise ValueError(
            f"t_span: got {times[0]:.10g} to {times[-1]:.10g}{whose}, expected a length that float64 can hold"
        )
    directions = [(b > a) - (b < a) for a, b in pairwise(times)]
    if len(set(directions)) > 1:
        i = next(i for i, direction in enumerate(directions) if direction != directions[0] or direction == 0)
        raise ValueError(
            f"t_span: got {times[i]:.10g} followed by {times[i + 1]:.10g} at index {i}{whose}, expected strictly "
            f"increasing or strictly decreasing times; try sorting it and dropping repeated ones"
        )


def check_tolerance(name: str, tolerance: float | Tensor) -> None:
    """Refuses a tolerance that no state could have.

    Raises:
        TypeError: If it is neither a number nor a tensor.
        ValueError: If it is not positive and finite.
    """
    if not isinstance(tolerance, Tensor):
        positive(name, tolerance, "a positive number or tensor")
    elif not tolerance.is_floating_point():
        raise TypeError(f"{name}: got dtype {tolerance.dtype}, expected a floating dtype")
    elif torch.compiler.is_compiling() or under_vmap():
        return  # its values cannot be read
    elif not bool(((tolerance > 0) & torch.isfinite(tolerance)).all()):
        raise ValueError(
            f"{name}: got a tensor with values from {tolerance.min().item()} to {tolerance.max().item()}, "
            f"expected positive and finite ones"
        )


def check_compact(compact: bool, stepping: str) -> None:
    """Refuses to let samples leave a batch that is one problem.

    Raises:
        ValueError: If that is asked for.
    """
    if compact and stepping == "joint":
        raise ValueError("compact: got True with stepping='joint', where the batch is one problem; try 'per_sample'")


def flat_tolerance(name: str, tolerance: float | Tensor, layout: StateLayout) -> float | Tensor:
    """Returns a tolerance as a number, or as a vector that fits the flat state.

    Raises:
        TypeError: As `check_tolerance`.
        ValueError: As `check_tolerance`, and if it does not broadcast against every leaf of the state.
    """
    check_tolerance(name, tolerance)
    dtype = wide_dtype(real_dtype(layout.dtype))
    smallest = torch.finfo(dtype).tiny  # less would be zero there, and so would the scale of an error
    if isinstance(tolerance, Tensor):
        if tolerance.dim() == 0:
            return tolerance.detach().to(dtype=dtype, device=layout.device).clamp_min(smallest)
        lead = layout.lead
        try:
            leaves = [
                torch.broadcast_to(tolerance.detach(), (*lead, *shape)).reshape(*lead, size)
                for shape, size in zip(layout.shapes, layout.sizes, strict=True)
            ]
        except RuntimeError:
            raise ValueError(
                f"{name}: got shape {list(tolerance.shape)}, expected one that broadcasts against the state's "
                f"{[[*lead, *shape] for shape in layout.shapes]}"
            ) from None
        return torch.cat(leaves, dim=-1).to(dtype=dtype, device=layout.device).clamp_min(smallest)
    number: float = constant(float(tolerance))
    return max(number, smallest)


def choose_controller(controller: Controller | None, stepper: Stepper, step_size: float | None) -> Controller:
    """Returns the controller that goes with a method: PID where it has an error estimate, otherwise fixed steps.

    Raises:
        TypeError: If `controller` is not a controller, or `step_size` not a number.
        ValueError: If `step_size` is not positive, or the controller does not go with it or with the method.
    """
    if step_size is not None:
        positive("step_size", step_size, "a positive number; its sign follows t_span")
    if controller is None:
        return PIDController() if step_size is None and stepper.error_order is not None else FixedStep()
    if not isinstance(controller, Controller):
        raise TypeError(f"controller: got {kind_of(controller)}, expected a dyn_numerics.Controller")
    if controller.adaptive and step_size is not None:
        raise ValueError(
            "step_size: got one beside an adaptive controller, expected one of the two (StopAt takes a FixedStep())"
        )
    if controller.adaptive and stepper.error_order is None:
        raise ValueError(
            f"controller: got an adaptive one for {type(stepper).__name__}, which has no error estimate; "
            f"try solver='tsit5', or leave the controller out (StopAt takes a FixedStep())"
        )
    return controller


def check_stops(stops: Tensor | None, layout: StateLayout) -> None:
    """Refuses times to stop at that belong to the samples of another batch, or of none.

    Raises:
        ValueError: If they are not `[n]`, or `[n, batch]` where samples have steps of their own.
    """
    if stops is not None and stops.dim() > 1 and stops.shape[1:] != layout.lead:
        own = f" or [n, {layout.lead[0]}]" if layout.lead else ""
        raise ValueError(f"controller: got times to stop at of shape {list(stops.shape)}, expected [n]{own}")


def step_limit(max_steps: int | None, adaptive: bool) -> float:
    """Returns the greatest number of attempts: by default 10^5 for adaptive steps and none for fixed ones.

    Raises:
        ValueError: If `max_steps` is not a positive integer.
    """
    if max_steps is None:
        return DEFAULT_MAX_STEPS if adaptive else inf
    return positive_integer("max_steps", max_steps, "a positive integer, or None for the default")


def check_step_size(spans: Iterable[Sequence[float]], step_size: float | None, max_steps: float) -> None:
    """Refuses fixed steps that are lost to rounding beside the times, or that would not end in a lifetime.

    Args:
        spans: First and last time of every span, as host numbers.
        step_size: Magnitude of the steps, or None.
        max_steps: Greatest number of steps.

    Raises:
        ValueError: If `step_size` is smaller than the spacing of times, or a span takes too many.
    """
    if step_size is None:
        return
    for first, last in spans:
        length = abs(last - first)
        spacing = ulp(max(abs(first), abs(last)))
        if length and step_size < spacing:
            raise ValueError(f"step_size: got {step_size}, expected at least {spacing:.3g}, the spacing of times there")
        if min(length / step_size, max_steps) > MOST_FIXED_STEPS:
            raise ValueError(
                f"step_size: got {step_size}, expected at least {length / MOST_FIXED_STEPS:.3g}: the span takes "
                f"{length / step_size:.3g} steps; try an adaptive solver, or set max_steps"
            )


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, (str, bool)) else f"a {type(value).__name__}"


def refuse_compiled(**options: Any) -> None:
    """Refuses what a compiled solve cannot do.

    Args:
        **options: Arguments of `odeint` by name, with their values.

    Raises:
        ValueError: If one of them asks for work in Python along the solve.
    """
    for name, value in options.items():
        if value not in (None, False, (), [], "t_span", Save()):
            raise ValueError(
                f"{name}: got {_short(value)} inside torch.compile, where a solve is one program; try it outside, "
                f"with torch.compiler.disable around the solve"
            )


def watched_events(events: Event | Sequence[Event], n_args: int) -> tuple[Event, ...]:
    """Returns the events to watch for as a tuple.

    Args:
        events: One event, or several.
        n_args: Number of extra arguments of the field, which conditions and jumps take as well.

    Raises:
        TypeError: If one is no `Event`, or has a condition or a jump that does not take `(t, x, *args)`.
    """
    if isinstance(events, Event):
        events = (events,)
    if not isinstance(events, Sequence):
        raise TypeError(f"events: got a {type(events).__name__}, expected an Event or a sequence of such")
    for i, event in enumerate(events):
        if not isinstance(event, Event):
            raise TypeError(f"events: got a {type(event).__name__} at {i}, expected an Event(condition, ...)")
        check_signature(event.condition, n_args, f"events[{i}].condition", "condition")
        if event.jump is not None:
            check_signature(event.jump, n_args, f"events[{i}].jump", "jump")
    return tuple(events)
