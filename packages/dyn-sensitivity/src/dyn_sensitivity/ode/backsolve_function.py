"""The forward and the backward solve of the continuous adjoint, as one differentiable function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_unflatten

import dyn_numerics
from dyn_numerics import Solution, SolverError
from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.ode.scalar import where
from dyn_numerics.ode.times import time_dtype
from dyn_numerics.substitutes import substituted, substitutes
from dyn_sensitivity.ode.recalled_field import RecalledField, hooks_set_aside

__all__ = ["BacksolveFunction", "BacksolveProblem"]


@dataclass
class BacksolveProblem:
    """What the forward and the backward solve share, and the forward solution.

    Attributes:
        field: The field.
        forward: Options of the forward solve, by the names of `dyn_numerics.odeint`.
        backward: Those of the backward one.
        forward_solution: What the forward solve found, until it is handed over.
    """

    field: RecalledField
    forward: dict[str, Any]
    backward: dict[str, Any]
    forward_solution: Solution | None = None

    def take_solution(self) -> Solution:
        """Hands the forward solution over: kept here, its states would hold the graph that holds this problem."""
        solution, self.forward_solution = self.forward_solution, None
        if solution is None:
            raise RuntimeError("the forward solve has not run")
        return solution

    def solve_forward(self, t_span: Tensor | Sequence[float], inputs: Sequence[Tensor]) -> Solution:
        """Solves the user's problem."""
        state, wanted, extra = self.field.split(inputs)
        f, args = self.field.observed(wanted, extra), self.field.args_with(wanted)
        x0 = tree_unflatten(state, self.field.state_structure)
        return dyn_numerics.odeint(f, x0, t_span, args=args, **self.forward)

    @property
    def samples(self) -> int:
        """Number of leading dimensions of the state that count samples, each a problem of its own."""
        return 1 if self.forward["stepping"] == "per_sample" else 0

    def field_time(self, t: Tensor, start: Tensor, alive: Tensor, state: Sequence[Tensor]) -> Tensor:
        """One time `[]` as the field gets it; where samples are problems of their own, shaped against their leaves.

        Args:
            t: The time.
            start: The first time, at which those stand that did not get there.
            alive: Which samples did, `[]` or `[batch]`.
            state: Leaves of the state.
        """
        if not self.samples:
            return t
        dims = state[0].dim() - 1 if self.field.state_structure.is_leaf() else 0
        return torch.where(alive, t, start.to(t.dtype)).reshape(-1, *[1] * dims)

    def solve_back(
        self,
        times: Tensor,
        state: Sequence[Tensor],
        adjoint: Sequence[Tensor],
        quadrature: Sequence[Tensor],
        wanted: Sequence[Tensor],
        extra: Sequence[Tensor],
        alive: Tensor,
        start: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Carries the adjoint and the gradients of args and parameters from the last of `times` to the first.

        Args:
            times: Output times of the forward solve from here to there, `[m]`, in its order.
            state: Leaves of the state at the last of them.
            adjoint: Derivative of the loss with respect to that state.
            quadrature: Gradients of args and parameters from later times.
            wanted: Tensors in args that want gradients.
            extra: Parameters that want gradients.
            alive: Which samples got there, `[]` or `[batch]`. The others stand still.
            start: The first time of all, `[]`, at which these stand.

        Returns:
            The adjoint and the gradients at the first time.
        """
        n, options = self.field.n_state, self.backward

        def field(t: Tensor, augmented: Any) -> Any:
            x, a, _ = augmented
            slope, products = self.field.pull_back(
                self.field_time(t, start, alive, x), x, [-leaf for leaf in a], wanted, extra
            )
            if self.samples:
                slope = [where(alive, k, torch.zeros_like(k)) for k in slope]
            return slope, products[:n], products[n:]

        try:
            solution = dyn_numerics.odeint(
                field,
                (list(state), list(adjoint), list(quadrature)),
                times[[-1, 0]] if options["controller"].adaptive else times.flip(0),
                **options,
            )
        except SolverError as error:
            error.add_note("This happened in the backward solve of sensitivity='adjoint'; 'autograd' does without it.")
            if self.samples and not bool(alive.all()):
                error.add_note(
                    "Some samples failed before: what belongs to samples in args has to be a PerSample then."
                )
            raise
        _, adjoint, quadrature = solution.x
        return [leaf[-1] for leaf in adjoint], [leaf[-1] for leaf in quadrature]


class BacksolveFunction(torch.autograd.Function):
    """Maps times, state, args and parameters to the leaves of the states at the times."""

    @staticmethod
    def forward(problem: BacksolveProblem, t_span: Tensor | Sequence[float], *inputs: Tensor) -> tuple[Tensor, ...]:
        problem.forward_solution = solution = problem.solve_forward(t_span, inputs)
        return tuple(tree_leaves(solution.x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        problem, t_span, *tensors = inputs
        ctx.problem = problem
        ctx.autocast = autocast_of_caller(output[0].device.type)
        t = t_span if isinstance(t_span, Tensor) else problem.forward_solution.t
        # The constants, to notice when they are written to.
        ctx.save_for_backward(t, *output, *tensors, *problem.field.constants)

    @staticmethod
    def backward(ctx: Any, *grad_x: Tensor) -> tuple[Tensor | None, ...]:
        t, *tensors = ctx.saved_tensors
        n_state, n_inputs = ctx.problem.field.n_state, len(ctx.needs_input_grad) - 2
        x, inputs = tensors[:n_state], tensors[n_state : n_state + n_inputs]
        with torch.no_grad(), ctx.autocast(), hooks_set_aside(inputs):
            grad_t, grads = _backward(ctx.problem, t, x, grad_x, inputs, bool(ctx.needs_input_grad[1]))
        if torch.is_grad_enabled():  # somebody wants to differentiate again
            given = grads if grad_t is None else [grad_t, *grads]
            given = list(_RefuseSecondDerivative.apply(len(given), *given, t, *inputs, *grad_x))  # type: ignore[no-untyped-call]
            grad_t, grads = (None, given) if grad_t is None else (given[0], given[1:])
        return None, grad_t, *grads


def _backward(
    problem: BacksolveProblem,
    t: Tensor,
    x: Sequence[Tensor],
    grad_x: Sequence[Tensor],
    inputs: Sequence[Tensor],
    wants_times: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """Carries the loss's derivative from the outputs back to the times and the inputs.

    Args:
        problem: The problem.
        t: Output times `[T]`.
        x: Leaves of the states there, `[T, ...]`.
        grad_x: Derivative of the loss with respect to them.
        inputs: State, args and parameters.
        wants_times: Whether the derivative with respect to `t` is wanted.

    Returns:
        The derivatives with respect to `t`, or None, and with respect to the inputs.
    """
    field = problem.field
    _, wanted, extra = field.split(inputs)
    times = t.to(time_dtype(x[0].device))
    reached = _reached(x, problem.samples)  # [T] or [T, batch]
    grad_x = [where(reached, g, torch.zeros_like(g)) for g in grad_x]
    # From an output that it did not reach a sample stands still at its start; if it got nowhere, at another's.
    places = substitutes(reached[1:].any(0)) if problem.samples and reached.numel() else None
    x = [where(reached, leaf, substituted(places, leaf[0]).expand_as(leaf)) for leaf in x]
    relevant, finite = _outputs_with_gradient(grad_x)
    if not finite:  # as anywhere in PyTorch; loss scaling in mixed precision counts on it
        return torch.full_like(t, torch.nan) if wants_times else None, [torch.full_like(p, torch.nan) for p in inputs]
    if relevant or wants_times:
        field.refuse_changed(wanted, extra)
    field = replace(field, places=places)
    problem = replace(problem, field=field)
    adjoint = [torch.zeros_like(g[0]) for g in grad_x]
    quadrature = [torch.zeros_like(p) for p in (*wanted, *extra)]
    grad_t = torch.zeros_like(t)

    def along_slope(i: int, cotangent: Sequence[Tensor]) -> Tensor:
        """Derivative of the state at output `i` with respect to its time, contracted with a cotangent."""
        state = [leaf[i] for leaf in x]
        now = problem.field_time(t[i], t[0], reached[i], state)
        slope, _ = field.pull_back(now, state, cotangent, wanted, extra)
        products = [(a.conj() * k).sum().real for a, k in zip(cotangent, slope, strict=True)]
        return torch.stack(products).sum()

    later = None  # the output that the adjoint belongs to
    for i in [*relevant, 0]:
        if later is not None and times[i] != times[later]:
            state = [leaf[later] for leaf in x]
            adjoint, quadrature = problem.solve_back(
                times[i : later + 1], state, adjoint, quadrature, wanted, extra, reached[later], times[0]
            )
        gradient = [g[i] for g in grad_x]
        if wants_times:
            grad_t[i] = along_slope(i, gradient) if i > 0 else -along_slope(0, adjoint)
        adjoint = [a + g for a, g in zip(adjoint, gradient, strict=True)]
        later = i
    return grad_t if wants_times else None, [*adjoint, *quadrature]


class _RefuseSecondDerivative(torch.autograd.Function):
    """Maps `n` gradients and what they depend on to the gradients, which raise when they are differentiated.

    Without it they would be constants to whoever differentiates them: silent zeros.
    """

    @staticmethod
    def forward(n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.clone() for gradient in tensors[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            "sensitivity='adjoint': its gradient was differentiated again, which it does not support; "
            "use sensitivity='autograd'"
        )


def _reached(x: Sequence[Tensor], samples: int) -> Tensor:
    """Which outputs the solve reached, `[T]` or `[T, batch]`."""
    finite = [torch.isfinite(leaf).reshape(*leaf.shape[: 1 + samples], -1).all(-1) for leaf in x]
    return torch.stack(finite).all(0)


def _outputs_with_gradient(grad_x: Sequence[Tensor]) -> tuple[list[int], bool]:
    """Indices of the outputs after the first that the loss depends on, the last first; and whether its derivative is finite."""
    count = len(grad_x[0])
    relevant = torch.stack([(g.reshape(count, -1) != 0).any(1) for g in grad_x]).any(0)
    finite = all(bool(torch.isfinite(g).all()) for g in grad_x)
    return [i for i in reversed(relevant.nonzero().flatten().tolist()) if i > 0], finite
