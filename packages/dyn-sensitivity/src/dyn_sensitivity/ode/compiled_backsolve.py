"""The continuous adjoint of a compiled solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from dyn_numerics import Solution
from dyn_numerics.ode.odeint import solve_compiled
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substitutes
from dyn_sensitivity.ode.compiled_field import CompiledField, refuse_differentiable
from dyn_sensitivity.ode.compiled_solution import packed, unpacked

__all__ = ["solve"]


@dataclass(frozen=True)
class _Problem:
    """What the forward and the backward solve share; options of the backward one by the names of `pose`."""

    field: CompiledField
    forward: dict[str, Any]
    backward: dict[str, Any]


def solve(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    args: tuple[Any, ...],
    options: dict[str, Any],
    backward: dict[str, Any],
) -> Solution:
    """Solves inside of torch.compile, with the adjoint's gradients to `x0`, tensors in args and the parameters of `f`.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times, `[T]`.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes.
        backward: Options of the backward solve, by the same names.

    Raises:
        ValueError: If a gradient is asked for that it cannot give.
    """
    layout = StateLayout(x0, "x0", options["stepping"] == "per_sample")
    refuse_differentiable(t_span)
    field, inputs = CompiledField.of(f, layout, args)
    if not backward["controller"].adaptive:
        raise ValueError(
            "solver: got fixed steps for 'adjoint' inside torch.compile; use 'autograd', or an adaptive one"
        )
    names = ("rtol", "atol", "step_size", "stepping", "controller", "max_steps")
    forward = {"solver": stepper(options["solver"]), **{name: options[name] for name in names}}
    posed = pose(f, x0, t_span, args=args, **forward)
    field.refuse_undeclared(posed.times[0], posed.start, inputs)
    start = layout.flatten(x0)
    found = _Adjoint.apply(_Problem(field, forward, backward), posed.times, start, *inputs)  # type: ignore[no-untyped-call]
    return unpacked(found, posed.t, layout)


class _Adjoint(torch.autograd.Function):
    """Maps times, state, args and parameters to the states at the times, and what else there is to say of the solve."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, times: Tensor, start: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        field, layout = problem.field, problem.field.layout
        args = field.args_with(inputs)
        posed = pose(field.f, layout.unflatten(start), times, args=args, **problem.forward)
        outputs = packed(solve_compiled(posed), layout)
        ctx.problem = problem
        ctx.save_for_backward(times, outputs[0], *inputs)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        times, x, *inputs = ctx.saved_tensors
        problem: _Problem = ctx.problem
        lead = x.shape[1:-1]
        t = times[(slice(None), *[0] * len(lead))]  # [T], shared by all samples
        reached = torch.isfinite(x).all(-1, keepdim=True)  # [T, *lead, 1]
        start, places = x[0], None
        if lead:  # where a sample got nowhere, the field may have no value: it takes the place of another
            places = substitutes(reached[1:].any(0).squeeze(-1))
            start = start[places]
        x = torch.where(reached, x, start)  # from an output that it did not reach a sample stands still at its start
        grad_x = torch.where(reached, grad_x, 0)

        def back(
            span: Tensor, y: Tensor, a: Tensor, shares: Sequence[Tensor], reached: Tensor
        ) -> tuple[Tensor, list[Tensor]]:
            alive = reached.to(y.dtype)

            def augmented(s: Tensor, state: Any) -> Any:
                (y,), (a,), _ = state
                now = state_time(torch.where(reached.squeeze(-1), s, t[0]), y)
                slope, pull = vjp(lambda y, *inputs: problem.field.at(inputs, places)(now, y), y, *inputs)[:2]
                grad_y, *shares = pull(-a)
                return (slope * alive,), (grad_y,), tuple(shares)

            posed = pose(augmented, ((y,), (a,), tuple(shares)), span, **problem.backward)
            _, (solved,), found = solve_compiled(posed, diagnose=False).x
            # Where nobody stands there is nothing to solve, and maybe no value of the field.
            kept = [torch.where(reached.any(), new[-1], old) for new, old in zip(found, shares, strict=True)]
            return torch.where(reached.any(), solved[-1], a), kept

        zeros = [torch.zeros_like(value) for value in inputs]
        if len(times) == 2:
            grad, grads = back(t.flip(0), x[1], grad_x[1], zeros, reached[1])
            grad = grad + grad_x[0]
        else:

            def going(j: Tensor, *carried: Tensor) -> Tensor:
                return j > 0

            # In one vector: what is carried must not be a view.
            carried = StateLayout((grad_x[0], *zeros), "grad")

            def body(j: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
                pair = torch.stack([j, j - 1])
                span, y = t.index_select(0, pair), x.index_select(0, pair[:1])[0]
                a, *shares = carried.unflatten(vector)
                a, shares = back(span, y, a, shares, reached.index_select(0, pair[:1])[0])
                return j - 1, carried.flatten((a + grad_x.index_select(0, pair[1:])[0], *shares))

            last = torch.full((), len(times) - 1, dtype=torch.int64, device=x.device)
            start = carried.flatten((grad_x[-1], *zeros))
            _, vector = torch.while_loop(going, body, (last, start))  # type: ignore[no-untyped-call]
            grad, *grads = carried.unflatten(vector)
        return None, None, grad.clone(), *(share.clone() for share in grads)
