"""The handler of initial value problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dyn_numerics.autocast import without_autocast
from dyn_numerics.ode.arguments import (
    check_initial_state,
    choose_controller,
    extra_arguments,
    flat_tolerance,
    step_grid,
    step_limit,
    time_span,
)
from dyn_numerics.ode.attempt import Problem, initial_state
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.eager_loop import Outcome, solve
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.flat_field import CountedField, check_signature
from dyn_numerics.ode.save import Saved, SaveDense, Saver, SaveSteps, SaveTimes
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steppers.by_name import stepper as stepper_by_name
from dyn_numerics.ode.times import Clock, is_differentiable, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status

__all__ = ["odeint"]


def odeint(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    solver: str | Stepper = "tsit5",
    rtol: float | Tensor = 1e-3,
    atol: float | Tensor = 1e-6,
    args: Sequence[Any] = (),
    step_size: float | None = None,
    controller: Controller | None = None,
    save: Literal["t_span", "steps", "dense"] = "t_span",
    max_steps: int | None = None,
    throw: bool = True,
) -> Solution:
    """Solves `dx/dt = f(t, x, *args)` from `x(t_span[0]) = x0`.

    The whole state, a batch included, is one problem with one step size. Adaptive methods land on the end of `t_span`,
    never evaluate `f` outside it, and interpolate the outputs in between, so that the number of evaluations does not
    depend on the number of outputs. Gradients flow through the accepted steps to `x0`, `args`, `t_span` and whatever
    `f` and a trainable solver depend on, as anywhere in PyTorch; step sizes are constants to them.

    Args:
        f: Vector field. Called with `t`, `[]` in the real dtype and on the device of the state, and the state; returns
            the slope in structure, shapes, dtypes and device of the state, in state units per time unit, as a new tensor.
            It must not write into the state. It computes under the caller's autocast; the method itself does not.
        x0: Initial state: a tensor of any shape or a pytree of tensors, real or complex, float64 to float16. `f` receives
            its leaves contiguous, whatever their memory format was.
        t_span: Output times `[T]`, strictly increasing or decreasing, a sequence of numbers or a floating tensor. The
            solve runs from the first to the last; a span of no length returns `x0`.
        solver: Name of a method (`"euler"`, `"midpoint"`, `"heun"`, `"ralston"`, `"rk4"` with fixed steps; `"bosh3"`,
            `"dopri5"`, `"tsit5"` with adaptive ones) or a `Stepper`.
        rtol: Relative tolerance of the local error, without unit: a positive number, or a tensor that broadcasts
            against every leaf of the state. Fixed steps ignore it.
        atol: Absolute tolerance of the local error, in state units; as `rtol`.
        args: Further arguments of `f`, of any type.
        step_size: Magnitude of fixed steps, in time units: the solve steps on `t0 + i * step_size` and interpolates
            the outputs (with gradients to `t_span` also those on a step, which may take one evaluation more). By default
            fixed-step methods step on `t_span` itself.
        controller: Step-size control; `PIDController()` by default where the method has an error estimate.
        save: What to keep: the states at `t_span`; `"steps"`, those at the ends of the accepted steps; or `"dense"`,
            the states at `t_span` and `Solution.dense`, the solution as a function of time.
        max_steps: Greatest number of attempted steps over the whole solve; by default 10^5 for adaptive steps and none
            for fixed ones.
        throw: Whether a solve that does not reach its end raises. If not, `Solution.status` tells, and the outputs that
            were not reached are NaN.

    Returns:
        The solution, which unpacks as `t, x`: the times `[T]` and the states `[T, *x0.shape]`.

    Raises:
        SolverError: If the solve does not reach its end and `throw` is true: `MaxStepsError`, `StepUnderflowError` or
            `NonFiniteError`, each with the partial solution as `error.solution`.
        TypeError: If an argument, or what `f` returns, has another type or dtype than expected.
        ValueError: If an argument, or what `f` returns, has another value, shape or device than expected, or `f` writes
            into its arguments.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: x * torch.cos(t), torch.ones(3), torch.linspace(0, 1, 5), rtol=1e-6)
        >>> x.shape, round(x[-1, 0].item(), 4)
        (torch.Size([5, 3]), 2.3198)

    References:
        Hairer, Norsett, Wanner: Solving Ordinary Differential Equations I, 2nd ed., chapter II.
    """
    args = extra_arguments(args)
    check_signature(f, len(args))
    layout = check_initial_state(x0)
    t, inner, times = time_span(t_span, layout)
    stepper = stepper_by_name(solver)
    controller = choose_controller(controller, stepper, step_size)
    norm = ErrorNorm(
        flat_tolerance("rtol", rtol, layout), flat_tolerance("atol", atol, layout), layout, controller.norm
    )
    limit = step_limit(max_steps, controller.adaptive)
    if save not in ("t_span", "steps", "dense"):
        raise ValueError(f"save: got {save!r}, expected 't_span', 'steps' or 'dense'")

    field = CountedField(f, args, layout)
    start = layout.flatten(x0)
    if controller.adaptive:
        grid, marks = [times[0], times[-1]], inner[[0, -1]]
    else:
        grid, marks = step_grid(times, inner, step_size, limit)
    has_length = times[0] != times[-1]
    differentiable = is_differentiable(inner)
    clock = Clock(
        start=times[0],
        targets=grid[1:] if has_length else [],
        differentiable=marks if has_length and differentiable else None,
    )
    # A grid of steps moves with its ends, not with the outputs that lie on it.
    own = [times[0], times[-1]] if differentiable and step_size is not None else grid
    lands_on_times = not controller.adaptive and set(times) <= set(own)
    first = start.expand(times.count(times[0]), -1)  # [m, N]
    if differentiable and not has_length:  # no step is taken that would move with the times
        slope = field(state_time(times[0], start), start)
        first = start + (inner - inner[0]).to(start.dtype.to_real()).unsqueeze(1) * slope
    outputs = SaveTimes(times, inner, first, lands_on_times, differentiable)
    steps = SaveSteps(clock.at(times[0]), start, inner)
    saver: Saver = {"t_span": outputs, "steps": steps, "dense": SaveDense(outputs, steps)}[save]

    problem = Problem(field, stepper, controller, clock, norm)
    with without_autocast(layout.device.type):
        outcome = solve(problem, initial_state(problem, start), [saver], limit)
        solution = _solution(outcome, saver.result(layout), field.n_evals, layout, t, save == "steps")
    return solution.raise_if_failed() if throw else solution


def _solution(
    outcome: Outcome, saved: Saved, n_evals: int, layout: StateLayout, t: Tensor, own_times: bool
) -> Solution:
    """Packs what a solve found.

    Args:
        outcome: How it ended.
        saved: What was kept.
        n_evals: Calls of `f`.
        layout: Layout of the state.
        t: Output times as the user gets them back.
        own_times: Whether other times were saved, which the user gets back in the dtype of those.
    """
    status, t_reached, x = outcome.status, outcome.state.t, saved.x
    known = layout.finite(x.detach()).cumprod(0).bool()  # [T]
    if not bool(known.all()) and (status.is_success or not bool(torch.isfinite(outcome.state.x.detach()).all())):
        # Nobody judged the steps, or the field at the end of the last one, which only its interpolant needs.
        status = Status.NON_FINITE
        t_reached = saved.t[known.sum() - 1].item()
        x = torch.where(known.unsqueeze(1), x, torch.nan)
    counts = [n_evals, outcome.n_accepted + outcome.n_rejected, outcome.n_accepted, outcome.n_rejected, n_evals]
    *stats, code = torch.tensor([*counts, status.code], device=layout.device).unbind()
    t_last, dt_last = torch.tensor([t_reached, outcome.dt], dtype=saved.t.dtype, device=layout.device).unbind()
    return Solution(
        t=saved.t.to(t.dtype) if own_times else t,
        x=layout.unflatten(x),
        stats=Statistics(*stats),
        status_code=code,
        t_reached=t_last,
        dt_last=dt_last,
        dense=saved.dense,
    )
