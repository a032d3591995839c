"""The continuous adjoint of a compiled solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from dyn_numerics import Solution
from dyn_numerics.ode.odeint import solve_compiled
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.scalar import Scalar
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
    begins_alike: bool


def solve(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    args: tuple[Any, ...],
    options: dict[str, Any],
    backward: dict[str, Any],
    begins_alike: bool,
) -> Solution:
    """Solves inside of torch.compile, with the adjoint's gradients to `x0`, tensors in args and the parameters of `f`.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times, `[T]`.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes.
        backward: Options of the backward solve, by the same names.
        begins_alike: Whether it may begin with a step as long as those of the forward solve.

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
    found = _Adjoint.apply(_Problem(field, forward, backward, begins_alike), posed.times, start, *inputs)  # type: ignore[no-untyped-call]
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
        ctx.save_for_backward(times, outputs[0], outputs[3], outputs[6], *inputs)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        times, x, dt_last, n_accepted, *inputs = ctx.saved_tensors
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

        reached = reached.squeeze(-1)  # [T, *lead]
        zeros = [torch.zeros_like(value) for value in inputs]

        def augmented(s: Tensor, state: Any) -> Any:
            (y,), (a,), _ = state
            alive = (a != 0).any(-1)  # [*lead]; the others did not get there, or have nothing to say
            now = state_time(torch.where(alive, s, t[0]), y)
            slope, pull = vjp(lambda y, *inputs: problem.field.at(inputs, places)(now, y), y, *inputs)[:2]
            grad_y, *shares = pull(-a)
            moved = alive.unsqueeze(-1)
            return (torch.where(moved, slope, 0),), (torch.where(moved, grad_y, 0),), tuple(shares)

        start_of_all = ((x[-1],), (grad_x[-1],), tuple(zeros))
        controller = problem.backward["controller"]
        if problem.begins_alike and not lead:  # the last step may have been cut short
            mean = (t[-1] - t[0]).abs() / n_accepted.clamp(min=1)
            controller = controller.with_first_step(torch.maximum(mean, dt_last))
        backward = {**problem.backward, "controller": controller}
        posed = pose(augmented, start_of_all, torch.stack([t[-1], t[0]]), **backward)
        control = problem.forward["controller"]
        if len(times) > 2 or (control is not None and control.stops is not None):
            stops, jumps = t[1:-1], control is not None and control.jumps
            if control is not None and control.stops is not None:
                stops = torch.cat([control.stops.to(t).flatten(), stops])  # of every sample: they step back jointly
            clock = posed.problem.clock.with_stops(stops, jumps, _Kicks(posed.layout, t, x, grad_x))
            posed = replace(posed, problem=replace(posed.problem, clock=clock))
        _, (adjoint,), shares = solve_compiled(posed, diagnose=False).x
        # Where nobody got anywhere there is nothing to solve, and maybe no value of the field.
        some = reached[1:].any()
        grad = torch.where(some, adjoint[-1], 0) + grad_x[0]
        return None, None, grad, *(torch.where(some, share[-1], 0) for share in shares)


class _Kicks:
    """What happens to a backward solve at the outputs that it passes.

    The adjoint gets what the loss says of the output, and the state is put back to that of the forward solve.

    Args:
        layout: Layout of state, adjoint and gradients.
        t: Output times, `[T]`.
        x: States there, `[T, *lead, N]`.
        grad_x: Derivative of the loss with respect to them.
    """

    def __init__(self, layout: StateLayout, t: Tensor, x: Tensor, grad_x: Tensor) -> None:
        self._layout, self._t, self._x, self._grad_x = layout, t, x, grad_x

    def take(self, samples: Tensor) -> _Kicks:
        """That of some of the samples: it is of all."""
        return self

    def __call__(self, t: Scalar, vector: Tensor) -> Tensor:
        """What a vector becomes at a time."""
        (y,), (a,), shares = self._layout.unflatten(vector)
        here = self._t == t
        at = here.to(torch.int64).argmax().reshape(1)
        passes = here.any()  # otherwise it is a stop of the forward solve
        x, gradient = self._x.index_select(0, at)[0], self._grad_x.index_select(0, at)[0]
        a = a + torch.where(passes, gradient, 0)
        y = torch.where(passes & (a != 0).any(-1, keepdim=True), x, y)
        return self._layout.flatten(((y,), (a,), shares))
