"""A problem as it was posed: checked, laid out flat, and before the first evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.arguments import check_initial_state, check_sampled_arguments, constant, extra_arguments
from dyn_numerics.loop import check_compiler
from dyn_numerics.ode.arguments import (
    check_field,
    check_step_size,
    check_stops,
    choose_controller,
    flat_tolerance,
    step_limit,
    time_span,
    watched_events,
)
from dyn_numerics.ode.attempt import Problem
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.events.jump import Jump
from dyn_numerics.ode.events.watch import EventWatch
from dyn_numerics.ode.flat_field import flat_field
from dyn_numerics.ode.kept_values import KeptValues
from dyn_numerics.ode.save import Form, Save
from dyn_numerics.ode.scalar import Flag
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steppers.by_name import stepper as stepper_by_name
from dyn_numerics.ode.times import Clock, is_differentiable
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_transform, under_vmap
from dyn_numerics.user_function import UserFunction, check_signature

__all__ = ["Posed", "pose", "pose_again"]


@dataclass(frozen=True)
class Posed:
    """A posed problem.

    Attributes:
        problem: What stays the same over the solve.
        layout: How the state lies in vectors.
        start: State at the start, `[*lead, N]`.
        times: Output times in the dtype of times, `[T, *lead]`.
        t: Output times as the user gets them back.
        save: What to keep.
        is_readable: Whether the values of tensors can be read.
        values: What to keep of a state instead of itself, or None.
    """

    problem: Problem
    layout: StateLayout
    start: Tensor
    times: Tensor
    t: Tensor
    save: Save
    is_readable: bool
    values: KeptValues | None = None


def pose(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    solver: str | Stepper,
    rtol: float | Tensor,
    atol: float | Tensor,
    args: Sequence[Any] = (),
    step_size: float | None = None,
    stepping: str = "joint",
    controller: Controller | None = None,
    save: Form | Save = "t_span",
    max_steps: int | None = None,
    events: Event | Sequence[Event] = (),
) -> Posed:
    """Checks the arguments of `odeint` and lays the problem out.

    Args:
        f: As in `dyn_numerics.odeint`, and so are the arguments that follow.
        x0: Initial state.
        t_span: Output times.
        solver: Method.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        args: Further arguments of `f`.
        step_size: Magnitude of fixed steps.
        stepping: `"joint"` or `"per_sample"`.
        controller: Step-size control.
        save: What to keep.
        max_steps: Greatest number of attempts.
        events: What to watch for.

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        TypeError: As `dyn_numerics.odeint`.
        ValueError: As `dyn_numerics.odeint`.
    """
    args = extra_arguments(args)
    compiling = torch.compiler.is_compiling()
    unreadable = compiling or under_vmap()  # values of tensors cannot be read
    stepper = _named(solver) if isinstance(solver, str) and not compiling else stepper_by_name(solver)
    check_field(f, len(args), stepper)
    per_sample = _is_per_sample(stepping)
    layout = check_initial_state(x0, per_sample)
    check_sampled_arguments(args, layout)
    watched = watched_events(events, len(args))
    controller = choose_controller(controller, stepper, step_size)
    check_stops(controller.stops, layout)
    step_size = None if step_size is None else constant(float(step_size))
    limit = step_limit(max_steps, controller.adaptive)
    save = Save.of(save)
    learns = _learns(controller)
    if learns and unreadable:
        raise ValueError(
            "controller: got one that is trained through the solve, expected that only outside of torch.compile and "
            "torch.func.vmap; try there, or under torch.no_grad()"
        )
    if compiling and layout.dtype.is_complex:
        raise ValueError(
            f"x0: got {layout.dtype} inside torch.compile, which cannot write complex numbers in a loop; "
            f"solve outside of it, or for the real and imaginary parts"
        )
    check_compiler("odeint")
    t, inner, clock = _schedule(t_span, layout, controller, step_size, limit)
    clock = clock.with_stops(controller.stops, controller.jumps, _state_jump(controller, args, layout))
    norm = ErrorNorm(
        flat_tolerance("rtol", rtol, layout),
        flat_tolerance("atol", atol, layout),
        layout,
        controller.norm,
        on_host=not isinstance(clock.start, Tensor),
        differentiable=learns,
    )
    context = SolveContext(layout, args, norm, controller.adaptive)
    problem = Problem(
        f=flat_field(f, args, layout, stepper.split),
        stepper=stepper.on(context),
        context=context,
        controller=controller,
        clock=clock,
        max_steps=limit,
        completes=bool(watched) or _completes(controller, clock, save),
        branches=not (per_sample or unreadable),
        learns=learns,
        events=EventWatch.of(watched, args, layout),
    )
    start = layout.flatten(x0).contiguous()  # torch differentiates no tensor forward whose elements share memory
    if not compiling:
        start = start.view_as(
            start
        )  # a field may ask for gradients of its argument, which the user's tensor must not get
    values = _kept_values(save, layout)
    return Posed(problem, layout, start, inner, t, save, not unreadable, values)


def pose_again(
    posed: Posed, x: Tensor, t_span: Tensor | Sequence[float], save: Save, max_steps: float, has_jumped: Flag = False
) -> Posed:
    """Poses a problem again with other times.

    Args:
        posed: The problem.
        x: State at the start, `[*lead, N]`.
        t_span: Output times.
        save: What to keep.
        max_steps: Greatest number of attempts.
        has_jumped: Where the state at the start is that after a jump there.

    Raises:
        TypeError: As `dyn_numerics.odeint`, of `t_span`.
        ValueError: As `dyn_numerics.odeint`, of `t_span`.
    """
    problem, layout = posed.problem, posed.layout
    controller, norm = problem.controller, problem.error_norm
    t, inner, clock = _schedule(t_span, layout, controller, problem.clock.step, max_steps)
    clock = clock.with_stops(controller.stops, controller.jumps, _state_jump(controller, problem.context.args, layout))
    clock.has_jumped = has_jumped
    learns = _learns(controller)
    values = posed.values
    if save is not posed.save:
        values = _kept_values(save, layout)
    norm = ErrorNorm(norm.rtol, norm.atol, layout, norm.norm, norm.on_host, learns)
    problem = replace(
        problem,
        f=problem.f.take(None),
        context=replace(problem.context, norm=norm),
        clock=clock,
        max_steps=max_steps,
        # What the last step knows of its end is not lost where the steps to come could do without.
        completes=problem.completes or _completes(controller, clock, save),
        learns=learns,
    )
    return Posed(problem, layout, x, inner, t, save, posed.is_readable, values)


def _schedule(
    t_span: Tensor | Sequence[float], layout: StateLayout, controller: Controller, step_size: float | None, limit: float
) -> tuple[Tensor, Tensor, Clock]:
    """The output times as the user gets them back and in the dtype of times, `[T, *lead]`, and the clock."""
    unreadable = torch.compiler.is_compiling() or under_vmap()
    times: Any  # host numbers, nested where samples have spans of their own
    t, inner, times = time_span(t_span, layout, on_host=not unreadable)
    if times:
        check_step_size(
            zip(times[0], times[-1], strict=True) if inner.dim() > 1 else [(times[0], times[-1])], step_size, limit
        )
    on_host = not (len(layout.lead) or unreadable or controller.differentiable)
    if inner.dim() == 1 and layout.lead:
        inner = inner.unsqueeze(-1).expand(-1, *layout.lead)
    marks = inner if under_transform() or is_differentiable(inner) else None
    lands_on_times = not controller.adaptive and step_size is None
    clock = Clock(times if on_host else inner.detach(), step_size, lands_on_times, marks)
    return t, inner, clock


def _state_jump(controller: Controller, args: Sequence[Any], layout: StateLayout) -> Jump | None:
    """What becomes of the state at the controller's stops, if anything does."""
    if controller.jump is None:
        return None
    if not torch.compiler.is_compiling():
        check_signature(controller.jump, len(args), "jump", "jump")
    return Jump("jump", UserFunction(controller.jump, args, layout, "jump"), layout)


def _kept_values(save: Save, layout: StateLayout) -> KeptValues | None:
    """What the user's function makes of states, if there is one."""
    if save.fn is None:
        return None
    check_signature(save.fn, 0, "fn", "function")
    return KeptValues(save.fn, layout)


def _completes(controller: Controller, clock: Clock, save: Save) -> bool:
    """Whether the steps have to be interpolated."""
    return controller.adaptive or save.keeps("dense") or not (clock.lands_on_times or len(clock.times) <= 2)


def _learns(controller: Controller) -> bool:
    """Whether the controller is trained through the solve."""
    learns = controller.differentiable and torch.is_grad_enabled()
    if torch.is_grad_enabled() and not learns and any(p.requires_grad for p in controller.parameters()):
        raise ValueError(
            f"controller: got {controller} with parameters that require gradients, which it does not train; set its "
            f"attribute differentiable to True, or freeze it"
        )
    return learns


@cache
def _named(name: str) -> Stepper:
    """The method of a name: nobody else has it, so it is made once."""
    return stepper_by_name(name)


def _is_per_sample(stepping: str) -> bool:
    if stepping not in ("joint", "per_sample"):
        raise ValueError(f"stepping: got {stepping!r}, expected 'joint' or 'per_sample'")
    return stepping == "per_sample"
