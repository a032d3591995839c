"""Gradients of the accepted steps of a compiled solve.

The forward solve writes down where its accepted steps end. The backward one goes through them from the last to the first:
each is computed again from its start and pulled back, with what the loss says of the outputs that it holds. Its start was
written down as well, or is found by undoing the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from dyn_numerics import Solution
from dyn_numerics.loop import while_loop
from dyn_numerics.ode.arguments import check_field, choose_controller
from dyn_numerics.ode.compiled_record import RecordEnds, RecordStates
from dyn_numerics.ode.odeint import solve_compiled_to_end
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.scalar import where
from dyn_numerics.ode.search import count_below
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.times import Clock, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substitutes
from dyn_sensitivity.ode.compiled_field import CompiledField, refuse_differentiable
from dyn_sensitivity.ode.compiled_solution import packed, unpacked

__all__ = ["MOST_RECORDED_STEPS", "method_of", "solve"]

MOST_RECORDED_STEPS = 4096
"""The default of `max_steps` for a compiled solve with gradient, which has room for each accepted step."""


@dataclass(frozen=True)
class _Problem:
    """What the forward and the backward solve share.

    Attributes:
        field: The field.
        options: Arguments of `pose`.
        context: What the method may know, but for the args.
        interpolates: Whether outputs lie within steps; otherwise every one is the end of a step.
        undoes: Whether steps are undone; otherwise their states are written down.
    """

    field: CompiledField
    options: dict[str, Any]
    context: SolveContext
    interpolates: bool
    undoes: bool


def method_of(options: dict[str, Any]) -> Stepper:
    """The method of a solve.

    Args:
        options: Arguments of `dyn_numerics.odeint`.

    Raises:
        ValueError: If it is trainable.
    """
    method = stepper(options["solver"])
    # One that is made here has no parameters, nor can the compiler look for them.
    if method is options["solver"] and any(p.requires_grad for p in method.parameters()):
        raise ValueError(
            f"solver: got the trainable {method}, which a compiled solve does not train; solve outside of it"
        )
    return method


def solve(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    args: tuple[Any, ...],
    options: dict[str, Any],
    method: Stepper,
    undoes: bool,
) -> Solution:
    """Solves inside of torch.compile, with first-order gradients to `x0`, tensors in args and the parameters of `f`.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes.
        method: The method.
        undoes: Whether the backward pass finds the starts of steps by undoing them, from the last on; otherwise the forward
            solve writes them down, and a step follows from the state at its start.

    Raises:
        ValueError: If a gradient is asked for that it cannot give.
    """
    layout = StateLayout(x0, "x0", options["stepping"] == "per_sample")
    refuse_differentiable(t_span)
    check_field(f, len(args), method)
    limit = MOST_RECORDED_STEPS if options["max_steps"] is None else options["max_steps"]
    field, inputs = CompiledField.of(f, layout, args, method.split)
    controller = choose_controller(options["controller"], method, options["step_size"])
    names = ("rtol", "atol", "step_size", "stepping")
    posing = {name: options[name] for name in names}
    posing.update(solver=method, controller=controller, max_steps=limit)
    posed = pose(f, x0, t_span, **posing)
    interpolates = controller.adaptive or options["step_size"] is not None
    problem = _Problem(field, posing, posed.problem.context, interpolates, undoes)
    start = posed.start
    field.refuse_undeclared(posed.times[0], start, inputs)
    return unpacked(_Steps.apply(problem, posed.times, start, *inputs), posed.t, layout)  # type: ignore[no-untyped-call]


class _Steps(torch.autograd.Function):
    """Maps times, state, args and parameters to the states at the times, and what else there is to say of the solve."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, times: Tensor, start: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        field, layout, capacity = problem.field, problem.field.layout, problem.options["max_steps"]
        posed = pose(field.f, layout.unflatten(start), times, args=field.args_with(inputs), **problem.options)
        record = (
            RecordEnds(capacity, posed.times) if problem.undoes else RecordStates(capacity, posed.start, posed.times)
        )
        solution, state = solve_compiled_to_end(posed, [record])
        outputs = packed(solution, layout)
        kept = [record.states] if isinstance(record, RecordStates) else [state.x, *tree_leaves(state.carry)]
        ctx.problem, ctx.n_kept = problem, len(kept)
        ctx.save_for_backward(times, start, outputs[6], outputs[1], record.ends, *kept, *inputs)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        times, start, count, code, ends, *rest = ctx.saved_tensors
        kept, inputs = rest[: ctx.n_kept], rest[ctx.n_kept :]
        problem: _Problem = ctx.problem
        field, method, controller = problem.field, problem.options["solver"], problem.options["controller"]
        clock = Clock(times, None, False).with_stops(controller.stops, controller.jumps)
        interpolates, undoes = problem.interpolates and len(times) > 2, problem.undoes
        lead = start.shape[:-1]
        at_start, success = times == times[0], code == 0
        at_end = (times == times[-1]) & success & ~at_start
        ahead = (times * clock.direction).movedim(0, -1).contiguous()  # [*lead, T]

        def cotangent(here: Tensor) -> Tensor:
            """What the loss says of the outputs somewhere, `[*lead, N]`."""
            return torch.where(here.unsqueeze(-1), grad_x, 0).sum(0)

        number = torch.arange(lead.numel(), device=start.device)
        final = (count - 1).reshape(-1)
        # A problem without such a step computes its last one again, one without any takes another's: both are finite.
        place = substitutes(final >= 0) if lead else number
        places = place if lead else None
        context = problem.context.take(place) if lead else problem.context

        def lent(value: Tensor) -> Tensor:
            return value[place] if lead else value

        def row(buffer: Tensor, i: Tensor, after: int = 0) -> Tensor:
            at = torch.minimum(i, final[place]).clamp(min=0) + after
            return buffer[at, place].reshape((*lead, *buffer.shape[2:]))

        def sided(inputs: Sequence[Tensor], t0: Tensor, t1: Tensor, x: Tensor) -> Any:
            f = clock.sided(field.at(inputs, places), t0, t1, x)
            return f, method.on(replace(context, args=field.args_with(inputs, places)))

        def begun(x: Tensor, *inputs: Tensor, ends: Any = (times[0], times[-1])) -> Any:
            """What the method carries at the start of a step."""
            f, own = sided(inputs, *ends, x)
            t = state_time(ends[0], x)
            return own.init(f, t, x, f(t, x))

        # What a step starts from and ends with: the state, and what the method carries where that is not made anew.
        structure = tree_flatten(begun(start, *inputs))[1] if undoes else None

        def going(i: Tensor, *carried: Any) -> Tensor:
            return i >= 0

        def body(i: Tensor, reached: list[Tensor], grad: list[Tensor], grads: list[Tensor]) -> tuple[Any, ...]:
            taken = i < count
            t0, t1 = row(ends, i), row(ends, i, 1)
            if not problem.interpolates and len(times) > 2:
                output = count_below(ahead, (t1 * clock.direction).unsqueeze(-1), including=False).clamp(
                    max=len(times) - 1
                )
                output = output.movedim(-1, 0)  # [1, *lead]
                here = grad_x.gather(0, output.unsqueeze(-1).expand(1, *grad_x.shape[1:]))[0]
                lands = taken & (times.gather(0, output)[0] == t1) & ~((t1 == times[-1]) & success)
                grad = [grad[0] + torch.where(lands.unsqueeze(-1), here, 0), *grad[1:]]

            def step(*values: Tensor) -> tuple[Tensor, ...]:
                x, *carry = values[: len(grad)]
                inputs = values[len(grad) :]
                f, own = sided(inputs, t0, t1, x)
                known = tree_unflatten(carry, structure) if undoes else begun(x, *inputs, ends=(t0, t1))
                found = own.step(f, t0, t1, x, known)
                after = [found.x, *(tree_leaves(found.carry) if undoes else ())]
                if not interpolates:
                    return tuple(after)
                found = own.complete(f, t1, found)
                return *after, own.interpolant(f, t0, t1, x, found)

            if undoes:
                f, own = sided(inputs, t0, t1, reached[0])
                before = own.inverse_step(f, t0, t1, reached[0], tree_unflatten(reached[1:], structure))
                link = tree_leaves(before)
                reached = [where(taken, one, other) for one, other in zip(link, reached, strict=True)]
            else:
                link = [row(kept[0], i)]
            pull = vjp(step, *link, *inputs)[1]
            of_step = tuple(where(taken, part, torch.zeros_like(part)) for part in grad)
            if interpolates:
                of_interpolant = _of_interpolant(times, t0, t1, grad_x, taken, at_end | at_start, method.dense_degree)
                shares = pull((*of_step, of_interpolant.to(method.dense_dtype(link[0]))))
            else:
                shares = pull(of_step)
            grad = [where(taken, one, other) for one, other in zip(shares, grad, strict=False)]
            return i - 1, reached, grad, [a + b for a, b in zip(grads, shares[len(grad) :], strict=True)]

        last = torch.where(success.unsqueeze(-1), cotangent(at_end), 0)
        reached = [lent(value) for value in kept] if undoes else []
        grad = [last, *(torch.zeros_like(value) for value in reached[1:])]
        first = (count.amax() if lead else count) - 1
        zeros = [torch.zeros_like(value) for value in inputs]
        _, _, grad, grads = while_loop(going, body, (first, reached, grad, zeros))
        if undoes:
            taken = count > 0
            pull = vjp(lambda *values: tuple(tree_leaves(begun(*values))), lent(start), *inputs)[1]
            of_x, *shares = pull(tuple(grad[1:]))
            grad = [grad[0] + where(taken, of_x, torch.zeros_like(of_x))]
            grads = [a + b for a, b in zip(grads, shares, strict=True)]
        return None, None, grad[0] + cotangent(at_start), *(share.clone() for share in grads)


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
