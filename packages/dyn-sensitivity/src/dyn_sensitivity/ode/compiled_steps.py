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
from dyn_numerics.ode.stepper import FlatField, Stepper
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.times import Clock, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substituted, substitutes
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
    controller = choose_controller(options["controller"], method, options["step_size"])
    field, inputs = CompiledField.of(f, layout, args, method.split, controller.jump)
    names = ("rtol", "atol", "step_size", "stepping")
    posing = {name: options[name] for name in names}
    posing.update(solver=method, controller=controller, max_steps=limit)
    posed = pose(f, x0, t_span, args=args, **posing)
    interpolates = controller.adaptive or options["step_size"] is not None
    problem = _Problem(field, posing, posed.problem.context, interpolates, undoes)
    start = posed.start
    field.refuse_undeclared(posed.times[0], start, inputs, controller.jump)
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
        grad, grads = _WayBack(ctx.problem, times, start, count, code, ends, kept, inputs).pull_back(grad_x)
        return None, None, grad, *(share.clone() for share in grads)


class _WayBack:
    """The accepted steps of a solve, from the last to the first.

    A link is what a step starts from or ends with, as a list of tensors `[*lead, ...]`: the state, and where steps are undone
    the leaves of what the method carries.

    Args:
        problem: The problem.
        times: Output times, `[T, *lead]`.
        start: State at the start, `[*lead, N]`.
        count: Number of accepted steps, `[*lead]`.
        code: Code of the status.
        ends: Those of `RecordEnds`.
        kept: The states of `RecordStates`, or, where steps are undone, the last link.
        inputs: What gradients go to beside the state.
    """

    def __init__(
        self,
        problem: _Problem,
        times: Tensor,
        start: Tensor,
        count: Tensor,
        code: Tensor,
        ends: Tensor,
        kept: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        self._problem, self._times, self._start, self._count, self._ends = problem, times, start, count, ends
        self._kept, self._inputs = kept, inputs
        self._method: Stepper = problem.options["solver"]
        controller = problem.options["controller"]
        self._jump = controller.jump
        self._clock = Clock(times, None, False).with_stops(controller.stops, controller.jumps)
        self._success = code == 0
        self._interpolates = problem.interpolates and len(times) > 2
        self._lands = not problem.interpolates and len(times) > 2
        self._lead = start.shape[:-1]
        self._final = (count - 1).reshape(-1)
        # A problem without such a step computes its last one again, one without any takes another's: both are finite.
        self._place = substitutes(self._final >= 0) if self._lead else torch.arange(1, device=start.device)
        self._places = self._place if self._lead else None
        self._context = problem.context.take(self._place) if self._lead else problem.context
        self._structure: Any = None  # of what the method carries
        if problem.undoes:
            self._structure = tree_flatten(self._begun(inputs, times[0], times[-1], start))[1]

    def pull_back(self, grad_x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pulls the derivative of a loss back through all steps.

        Args:
            grad_x: Its derivative with respect to the outputs, `[T, *lead, N]`.

        Returns:
            Those with respect to the state at the start and to the inputs.
        """
        times, count, inputs, undoes = self._times, self._count, self._inputs, self._problem.undoes
        at_start = times == times[0]
        at_end = (times == times[-1]) & self._success & ~at_start

        def cotangent(here: Tensor) -> Tensor:
            return torch.where(here.unsqueeze(-1), grad_x, 0).sum(0)

        def going(i: Tensor, *carried: Any) -> Tensor:
            return i >= 0

        def body(i: Tensor, behind: list[Tensor], grad: list[Tensor], grads: list[Tensor]) -> tuple[Any, ...]:
            taken, t0, t1 = i < count, self._row(self._ends, i), self._row(self._ends, i, 1)
            if undoes:
                link = self._undone(t0, t1, behind)
                behind = [where(taken, one, other) for one, other in zip(link, behind, strict=True)]
            else:
                link = [self._row(self._kept[0], i)]
            cotangents = [where(taken, part, torch.zeros_like(part)) for part in grad]
            if self._lands:
                cotangents.append(self._of_output_at(t1, grad_x, taken))
            if self._interpolates:
                degree, dtype = self._method.dense_degree, self._method.dense_dtype(link[0])
                cotangents.append(_of_interpolant(times, t0, t1, grad_x, taken, at_end | at_start, degree).to(dtype))
            found = vjp(lambda *values: self._step(t0, t1, values), *link, *inputs)[1](tuple(cotangents))
            of_link, shares = found[: len(link)], found[len(link) :]
            grad = [where(taken, one, other) for one, other in zip(of_link, grad, strict=True)]
            return i - 1, behind, grad, [a + b for a, b in zip(grads, shares, strict=True)]

        first = (count.amax() if self._lead else count) - 1
        behind = [self._lent(value) for value in self._kept] if undoes else []
        grad = [where(self._success, cotangent(at_end), torch.zeros_like(self._start))]
        grad += [torch.zeros_like(value) for value in behind[1:]]
        zeros = [torch.zeros_like(value) for value in inputs]
        _, _, grad, grads = while_loop(going, body, (first, behind, grad, zeros))
        if undoes:
            of_start, *shares = vjp(self._first_carry, self._lent(self._start), *inputs)[1](tuple(grad[1:]))
            begun = count > 0  # where nobody has, the field may have no value
            grad = [grad[0] + where(begun, of_start, torch.zeros_like(of_start))]
            grads = [torch.where(begun.any(), a + b, a) for a, b in zip(grads, shares, strict=True)]
        if self._jump is not None:
            of_start, *shares = vjp(self._beyond_start, self._start, *inputs)[1](grad[0])
            grad, grads = [of_start], [a + b for a, b in zip(grads, shares, strict=True)]
        return grad[0] + cotangent(at_start), grads

    def _lent(self, value: Tensor) -> Tensor:
        """The values of those who take the places, `[*lead, ...]`."""
        return value[self._place] if self._lead else value

    def _row(self, buffer: Tensor, i: Tensor, after: int = 0) -> Tensor:
        """What is written down of step number `i`, or so many rows after it, of those who take the places."""
        at = torch.minimum(i, self._final[self._place]).clamp(min=0) + after
        return buffer[at, self._place].reshape((*self._lead, *buffer.shape[2:]))

    def _stepping(self, inputs: Sequence[Tensor], t0: Tensor, t1: Tensor, x: Tensor) -> tuple[FlatField, Stepper]:
        """The field as a step sees it, and the method."""
        field = self._problem.field
        own = self._method.on(replace(self._context, args=field.args_with(inputs, self._places)))
        return self._clock.sided(field.at(inputs, self._places), t0, t1, x), own

    def _begun(self, inputs: Sequence[Tensor], t0: Tensor, t1: Tensor, x: Tensor) -> Any:
        """What the method carries at the start of a step where it is made anew."""
        f, own = self._stepping(inputs, t0, t1, x)
        t = state_time(t0, x)
        return own.init(f, t, x, f(t, x))

    def _first_carry(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        span = self._lent(self._times[0]), self._lent(self._times[-1])
        return tuple(tree_leaves(self._begun(inputs, *span, x)))

    def _step(self, t0: Tensor, t1: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The link behind a step, and what outputs in it are made of; from the link before it and the inputs.

        That is its end where outputs are ends of steps, and its interpolant where they lie within.
        """
        n_link = len(values) - len(self._inputs)
        (x, *carry), inputs = values[:n_link], values[n_link:]
        undoes = self._problem.undoes
        f, own = self._stepping(inputs, t0, t1, x)
        known = tree_unflatten(carry, self._structure) if undoes else self._begun(inputs, t0, t1, x)
        found = own.step(f, t0, t1, x, known)
        after = found.x
        if self._jump is not None:
            after = self._beyond(inputs, t1, after, t1 != self._lent(self._times[-1]), self._places)
        seen: list[Tensor] = [found.x] if self._lands else []
        if self._interpolates:
            completed = own.complete(f, t1, found)
            seen.append(own.interpolant(f, t0, t1, x, completed))
        return after, *(tree_leaves(found.carry) if undoes else ()), *seen

    def _beyond_start(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """The state right after the start."""
        return self._beyond(inputs, self._times[0], x, self._times[0] != self._times[-1])

    def _beyond(
        self, inputs: Sequence[Tensor], t: Tensor, x: Tensor, wanted: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """The state right after a time, `[*lead, N]`, where it is wanted and there is a stop."""
        landed = wanted & self._clock.stops.hold(t)  # type: ignore[union-attr]
        # Where it is not wanted the jump may have no derivative: one that is takes the place, or nobody.
        some, at = landed.any(), (t, x)
        if self._lead:
            lent = substitutes(landed)
            places, at = lent if places is None else places[lent], substituted(lent, at)
        given = [torch.where(some, value, value.detach()) for value in inputs]
        jump = self._problem.field.jump_at(self._jump, given, places)
        return where(landed, jump(at[0], torch.where(some, at[1], at[1].detach())), x)

    def _undone(self, t0: Tensor, t1: Tensor, behind: Sequence[Tensor]) -> list[Tensor]:
        """The link before a step, from the one behind it."""
        x, *carry = behind
        f, own = self._stepping(self._inputs, t0, t1, x)
        return tree_leaves(own.inverse_step(f, t0, t1, x, tree_unflatten(carry, self._structure)))

    def _of_output_at(self, t1: Tensor, grad_x: Tensor, taken: Tensor) -> Tensor:
        """What the loss says of the output at the end of a step, but for that at the end of the solve, `[*lead, N]`."""
        times, direction = self._times, self._clock.direction
        ahead = (times * direction).movedim(0, -1).contiguous()  # [*lead, T]
        output = count_below(ahead, (t1 * direction).unsqueeze(-1), including=False)  # [*lead, 1]
        output = output.clamp(max=len(times) - 1).movedim(-1, 0)
        here = grad_x.gather(0, output.unsqueeze(-1).expand(1, *grad_x.shape[1:]))[0]
        lands = taken & (times.gather(0, output)[0] == t1) & ~((t1 == times[-1]) & self._success)
        return where(lands, here, torch.zeros_like(here))


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
