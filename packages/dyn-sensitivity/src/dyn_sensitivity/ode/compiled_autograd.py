"""Gradients through the accepted steps of a compiled solve.

The forward solve writes its accepted steps down, their states included. The backward one goes through them from the last
to the first: each is computed again and pulled back, with what the loss says of the outputs that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from dyn_numerics import Solution, Statistics
from dyn_numerics.ode.arguments import check_field, choose_controller
from dyn_numerics.ode.odeint import solve_compiled
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.step_record import RecordStates
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.times import Clock, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substitutes
from dyn_sensitivity.ode.compiled_field import CompiledField, refuse_differentiable

__all__ = ["MOST_RECORDED_STEPS", "packed", "solve", "unpacked"]

MOST_RECORDED_STEPS = 4096
"""The default of `max_steps` for a compiled solve with gradient, which has room for the state at each accepted step."""


@dataclass(frozen=True)
class _Problem:
    """What the forward and the backward solve share.

    Attributes:
        field: The field.
        options: Arguments of `pose`.
        context: What the method may know, but for the args.
        interpolates: Whether outputs lie within steps; otherwise every one is the end of a step.
    """

    field: CompiledField
    options: dict[str, Any]
    context: SolveContext
    interpolates: bool


def solve(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Solution:
    """Solves inside of torch.compile, with first-order gradients to `x0`, tensors in args and the parameters of `f`.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes.

    Raises:
        ValueError: If a gradient is asked for that it cannot give.
    """
    layout = StateLayout(x0, "x0", options["stepping"] == "per_sample")
    refuse_differentiable(t_span)
    method = stepper(options["solver"])
    # One that is made here has no parameters, nor can the compiler look for them.
    if method is options["solver"] and any(p.requires_grad for p in method.parameters()):
        raise ValueError(
            f"solver: got the trainable {method}, which a compiled solve does not train; solve outside of it"
        )
    if not method.one_step:
        raise ValueError(
            f"solver: got {method}, whose steps rest on those before, which a compiled gradient through the steps does not "
            f"record; try sensitivity='adjoint', or solve outside of torch.compile"
        )
    if method.loops:
        raise ValueError(
            f"solver: got {method} inside torch.compile, whose steps are loops that a compiled solve has no gradients through; "
            f"use 'rodas5p', which has them, solve under torch.no_grad(), or outside of torch.compile"
        )
    check_field(f, len(args), method)
    limit = MOST_RECORDED_STEPS if options["max_steps"] is None else options["max_steps"]
    field, inputs = CompiledField.of(f, layout, args, method.split)
    controller = choose_controller(options["controller"], method, options["step_size"])
    if controller.jump is not None:
        raise ValueError(
            "controller: got one with a jump of the state inside torch.compile, through which a compiled solve has no "
            "gradient; solve outside of it, or under torch.no_grad()"
        )
    names = ("rtol", "atol", "step_size", "stepping")
    posing = {name: options[name] for name in names}
    posing.update(solver=method, controller=controller, max_steps=limit)
    posed = pose(f, x0, t_span, **posing)
    problem = _Problem(field, posing, posed.problem.context, controller.adaptive or options["step_size"] is not None)
    start = posed.start
    field.refuse_undeclared(posed.times[0], start, inputs)
    return unpacked(_Steps.apply(problem, posed.times, start, *inputs), posed.t, layout)  # type: ignore[no-untyped-call]


def packed(solution: Solution, layout: StateLayout) -> tuple[Tensor, ...]:
    """A solution as tensors, which an autograd function can return: the states flat, `[T, *lead, N]`, and the rest."""
    ends = (solution.status_code, solution.t_reached, solution.dt_last)
    return layout.flatten(solution.x), *ends, *solution.stats.counts.values()


def unpacked(tensors: Sequence[Tensor], t: Tensor, layout: StateLayout) -> Solution:
    """The solution that was `packed`, with the times as the user gets them back."""
    x, code, t_reached, dt_last, *counts = tensors
    return Solution(t, layout.unflatten(x), Statistics(*counts), code, t_reached, dt_last)


class _Steps(torch.autograd.Function):
    """Maps times, state, args and parameters to the states at the times, and what else there is to say of the solve."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, times: Tensor, start: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        field, layout = problem.field, problem.field.layout
        x0 = layout.unflatten(start)
        posed = pose(field.f, x0, times, args=field.args_with(inputs), **problem.options)
        record = RecordStates(problem.options["max_steps"], posed.start, posed.times)
        solution = solve_compiled(posed, [record])
        outputs = packed(solution, layout)
        ctx.problem = problem
        ctx.save_for_backward(times, start, outputs[6], outputs[1], *record.result(), *inputs)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        times, start, count, code, t0s, t1s, reacheds, xs, *inputs = ctx.saved_tensors
        problem: _Problem = ctx.problem
        field, method, controller = problem.field, problem.options["solver"], problem.options["controller"]
        clock = Clock(times, None, False).with_stops(controller.stops, controller.jumps)
        interpolates = problem.interpolates and len(times) > 2
        lead = start.shape[:-1]
        at_start, success = times == times[0], code == 0
        at_end = (times == times[-1]) & success & ~at_start

        def cotangent(where: Tensor) -> Tensor:
            """What the loss says of the outputs somewhere, `[*lead, N]`."""
            return torch.where(where.unsqueeze(-1), grad_x, 0).sum(0)

        number = torch.arange(lead.numel(), device=start.device)
        final = (count - 1).reshape(-1)
        # A problem without such a step computes its last one again, one without any takes another's: both are finite.
        place = substitutes(final >= 0) if lead else number
        places = place if lead else None
        context = problem.context.take(place) if lead else problem.context

        def row(buffer: Tensor, i: Tensor) -> Tensor:
            at = torch.minimum(i, final[place]).clamp(min=0)
            return buffer[at, place].reshape((*lead, *buffer.shape[2:]))

        def going(i: Tensor, *carried: Tensor) -> Tensor:
            return i >= 0

        def body(i: Tensor, grad: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:
            taken = i < count
            t0, t1, x = row(t0s, i), row(t1s, i), row(xs, i)
            if not problem.interpolates and len(times) > 2:
                output = (row(reacheds, i) + 1).clamp(0, len(times) - 1)
                here = grad_x.gather(0, output.reshape(1, *lead, 1).expand(1, *grad_x.shape[1:]))[0]
                target = times.gather(0, output.unsqueeze(0))[0]
                lands = taken & (t1 == target) & ~((target == times[-1]) & success)
                grad = grad + torch.where(lands.unsqueeze(-1), here, 0)

            def step(x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
                f = clock.sided(field.at(inputs, places), t0, t1, x)
                own = method.on(replace(context, args=field.args_with(inputs, places)))
                t = state_time(t0, x)
                found = own.step(f, t0, t1, x, own.init(f, t, x, f(t, x)))
                if not interpolates:
                    return (found.x,)
                found = own.complete(f, t1, found)
                return found.x, own.interpolant(f, t0, t1, x, found)

            pull = vjp(step, x, *inputs)[1]
            of_step = torch.where(taken.unsqueeze(-1), grad, 0)
            if interpolates:
                of_interpolant = _of_interpolant(times, t0, t1, grad_x, taken, at_end | at_start, method.dense_degree)
                grad_of_x, *shares = pull((of_step, of_interpolant.to(method.dense_dtype(x))))
            else:
                grad_of_x, *shares = pull((of_step,))
            grad = torch.where(taken.unsqueeze(-1), grad_of_x, grad)
            return (i - 1, grad, *(a + b for a, b in zip(grads, shares, strict=True)))

        last = torch.where(success.unsqueeze(-1), cotangent(at_end), 0)
        zeros = [torch.zeros_like(value) for value in inputs]
        first = (count.amax() if lead else count) - 1
        _, grad, *grads = torch.while_loop(going, body, (first.clone(), last.clone(), *zeros))  # type: ignore[no-untyped-call]
        grad = grad + cotangent(at_start)
        return None, None, grad, *(share.clone() for share in grads)


def _of_interpolant(
    times: Tensor, t0: Tensor, t1: Tensor, grad_x: Tensor, taken: Tensor, elsewhere: Tensor, degree: int
) -> Tensor:
    """What the loss says of the coefficients of a step's interpolant, `[*lead, degree + 1, N]`.

    Args:
        times: Output times, `[T, *lead]`.
        t0: Start of the step, `[*lead]`.
        t1: End of the step.
        grad_x: Derivative of the loss with respect to the outputs, `[T, *lead, N]`.
        taken: Where the step is one, `[*lead]`.
        elsewhere: The outputs that are no interpolants, `[T, *lead]`.
        degree: Degree of the polynomial.
    """
    theta = (times - t0) / torch.where(t1 == t0, 1, t1 - t0)
    inside = (theta > 0) & (theta <= 1) & taken & ~elsewhere
    theta = torch.where(inside, theta, 0).to(grad_x.dtype).unsqueeze(-1)
    share = torch.where(inside.unsqueeze(-1), grad_x, 0)
    sums = []
    for _ in range(degree + 1):
        sums.append(share.sum(0))
        share = share * theta
    return torch.stack(sums, dim=-2)
