"""A problem as it was posed: checked, laid out flat, and before the first evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode import compiled_loop
from dyn_numerics.ode.arguments import (
    check_initial_state,
    check_sampled_arguments,
    check_step_size,
    choose_controller,
    constant,
    extra_arguments,
    flat_tolerance,
    step_limit,
    time_span,
)
from dyn_numerics.ode.attempt import Problem
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.flat_field import UserField, check_signature
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steppers.by_name import stepper as stepper_by_name
from dyn_numerics.ode.times import Clock, is_differentiable
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_transform, under_vmap

__all__ = ["Posed", "pose"]


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
    """

    problem: Problem
    layout: StateLayout
    start: Tensor
    times: Tensor
    t: Tensor
    save: Save
    is_readable: bool


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
    save: str | Save = "t_span",
    max_steps: int | None = None,
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

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        TypeError: As `dyn_numerics.odeint`.
        ValueError: As `dyn_numerics.odeint`.
    """
    args = extra_arguments(args)
    compiling = torch.compiler.is_compiling()
    unreadable = compiling or under_vmap()  # values of tensors cannot be read
    if not compiling:
        check_signature(f, len(args))
    per_sample = _is_per_sample(stepping)
    layout = check_initial_state(x0, per_sample)
    check_sampled_arguments(args, layout)
    stepper = _named(solver) if isinstance(solver, str) and not compiling else stepper_by_name(solver)
    controller = choose_controller(controller, stepper, step_size)
    step_size = None if step_size is None else constant(float(step_size))
    limit = step_limit(max_steps, controller.adaptive)
    save = Save.of(save)
    learns = controller.differentiable and torch.is_grad_enabled()
    if torch.is_grad_enabled() and not learns and any(p.requires_grad for p in controller.parameters()):
        raise ValueError(
            f"controller: got {controller} with parameters that require gradients, which it does not train; set its "
            f"attribute differentiable to True, or freeze it"
        )
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
    if compiling and not compiled_loop.is_supported():
        oldest = ".".join(map(str, compiled_loop.OLDEST_TORCH))
        raise RuntimeError(
            f"odeint: a solve inside torch.compile needs torch {oldest} or newer, got {torch.__version__}; "
            f"solve outside of it, or install a newer one"
        )
    times: Any  # host numbers, nested where samples have spans of their own
    t, inner, times = time_span(t_span, layout, on_host=not unreadable)
    if times:
        check_step_size(
            zip(times[0], times[-1], strict=True) if inner.dim() > 1 else [(times[0], times[-1])], step_size, limit
        )
    on_host = not (per_sample or unreadable or controller.differentiable)
    if inner.dim() == 1 and per_sample:
        inner = inner.unsqueeze(-1).expand(-1, *layout.lead)
    marks = inner if under_transform() or is_differentiable(inner) else None
    lands_on_times = not controller.adaptive and step_size is None
    problem = Problem(
        f=UserField(f, args, layout),
        stepper=stepper.on(layout),
        controller=controller,
        clock=Clock(times if on_host else inner.detach(), step_size, lands_on_times, marks),
        error_norm=ErrorNorm(
            flat_tolerance("rtol", rtol, layout),
            flat_tolerance("atol", atol, layout),
            layout,
            controller.norm,
            on_host=on_host,
            differentiable=learns,
        ),
        max_steps=limit,
        completes=controller.adaptive or save.states == "dense" or not (lands_on_times or len(inner) <= 2),
        branches=not (per_sample or unreadable),
        learns=learns,
    )
    start = layout.flatten(x0)
    if not compiling:
        start = start.view_as(
            start
        )  # a field may ask for gradients of its argument, which the user's tensor must not get
    return Posed(problem, layout, start, inner, t, save, not unreadable)


@cache
def _named(name: str) -> Stepper:
    """The method of a name: nobody else has it, so it is made once."""
    return stepper_by_name(name)


def _is_per_sample(stepping: str) -> bool:
    if stepping not in ("joint", "per_sample"):
        raise ValueError(f"stepping: got {stepping!r}, expected 'joint' or 'per_sample'")
    return stepping == "per_sample"
