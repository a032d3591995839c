"""The continuous adjoint, solved backwards together with the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_unflatten

import dyn_numerics
from dyn_numerics import Save, Seminorm, Solution, SolverError, Stepper
from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.ode.arguments import (
    check_initial_state,
    check_tolerance,
    choose_controller,
    refuse_compiled,
    time_span,
)
from dyn_numerics.ode.per_sample import bare_arguments
from dyn_numerics.ode.scalar import where
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.substitutes import substituted, substitutes
from dyn_numerics.ode.times import is_differentiable, time_dtype
from dyn_sensitivity.ode import compiled_backsolve
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.recalled_field import RecalledField, hooks_set_aside

__all__ = ["Backsolve"]

BackwardNorm = Callable[[Any], Tensor] | Seminorm


class Backsolve(SensitivityAlgorithm):
    """Solves the adjoint equation backwards in time (optimise, then discretise).

    With the loss's derivative `a = dL/dx`, it solves `dx/dt = f`, `da/dt = -a df/dx` and `dg/dt = -a df/dtheta` from
    the last output time to the first and adds the loss's derivative with respect to each output when it passes it.
    Memory does not grow with the number of steps. The gradient is *approximate*: it converges with the tolerances, and
    it needs a state that can be solved backwards, which a strongly contracting or chaotic one cannot.

    Gradients reach `x0`, `t_span`, the tensors in `args` and `params`, and the parameters of modules that `f` holds.
    They can't be differentiated again. The backward solve calls `f` again, under the autocast of the forward solve; it
    refuses one that depends on other differentiable tensors by then, or has another value where the forward solve
    started. Forward-mode derivatives are refused.

    Args:
        norm: Norm of the backward error, a function of the tuple (leaves of the state, leaves of the adjoint, parameter
            gradients) to a tensor `[]`, or a seminorm over parts of it. `Seminorm(0, 1)` when None, which leaves the parameter
            gradients out: they are quadratures.
        solver: Method of the backward solve; that of the forward solve when None. It steps on the forward solve's grid
            if that has fixed steps and it has no error estimate of its own.
        rtol: Relative tolerance of the backward solve; that of the forward solve when None.
        atol: Absolute tolerance of the backward solve; that of the forward solve when None.

    Raises:
        TypeError: If the solver is no name or `Stepper`, or a tolerance no number.
        ValueError: If there is no solver of that name, or a tolerance is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> net = torch.nn.Linear(2, 2)
        >>> sol = odeint(lambda t, x: net(x), torch.ones(5, 2), [0.0, 1.0], sensitivity="adjoint")
        >>> sol.x[-1].sum().backward()
        >>> net.weight.grad.shape
        torch.Size([2, 2])

    References:
        - L. S. Pontryagin et al.: The Mathematical Theory of Optimal Processes (1962).
        - R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018, appendix B.
        - P. Kidger, R. T. Q. Chen, T. Lyons: "Hey, that's not an ODE": Faster ODE adjoints via seminorms, ICML 2021.
    """

    def __init__(
        self,
        *,
        norm: BackwardNorm | None = None,
        solver: str | Stepper | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        if solver is not None:
            stepper(solver)
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if tolerance is not None:
                check_tolerance(name, tolerance)
        self.norm = Seminorm(0, 1) if norm is None else norm
        self.solver = solver
        self.rtol = rtol
        self.atol = atol

    def __repr__(self) -> str:
        return f"Backsolve(solver={self.solver!r}, rtol={self.rtol}, atol={self.atol})"

    def solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        *,
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        **options: Any,
    ) -> Solution:
        """As `SensitivityAlgorithm.solve`.

        Raises:
            ValueError: If gradients are wanted and the solver is trainable, something else than the states at `t_span`
                is to be saved, the backward solver cannot choose its steps, or `f` captures a differentiable tensor
                that it does not know.
        """
        if not torch.is_grad_enabled():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        args = bare_arguments(args)
        if torch.compiler.is_compiling():
            refuse_compiled(**{name: options[name] for name in ("save", "compact", "progress", "callbacks")})
            self._refuse_unsupported(t_span, options)
            return compiled_backsolve.solve(f, x0, t_span, args, options, self.backward(options))
        self._refuse_unsupported(t_span, options)
        field, inputs = RecalledField.of(f, x0, args, params)
        problem = _Problem(field, self, options)
        times: Tensor | Sequence[float] = t_span
        kept: dict[str, Any] = {}
        if not isinstance(t_span, Tensor) and any(_is_differentiable(t) for t in tree_leaves(t_span)):
            # As one tensor, which can be differentiated; the user gets the times back as always.
            kept["t"], times, _ = time_span(t_span, check_initial_state(x0))
        x = _BacksolveFunction.apply(problem, times, *inputs)  # type: ignore[no-untyped-call]
        return replace(problem.take_solution(), x=tree_unflatten(list(x), field.state_structure), **kept)

    def backward(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of the backward solve, from those of the forward one; both by the names of `dyn_numerics.odeint`."""
        solver = stepper(options["solver"] if self.solver is None else self.solver)
        controller = choose_controller(options["controller"], solver, options["step_size"])
        return {
            "solver": solver,
            "rtol": _least(options["rtol"]) if self.rtol is None else self.rtol,
            "atol": _least(options["atol"]) if self.atol is None else self.atol,
            "step_size": options["step_size"],
            "controller": controller.with_norm(self.norm),
            "max_steps": options["max_steps"],
        }

    def _refuse_unsupported(self, t_span: Tensor | Sequence[float], options: dict[str, Any]) -> None:
        if isinstance(t_span, Tensor) and t_span.dim() > 1:
            raise ValueError(
                "t_span: got times for each sample with sensitivity='adjoint', expected [T]; use sensitivity='autograd'"
            )
        solver = options["solver"]
        if isinstance(solver, Stepper) and any(p.requires_grad for p in solver.parameters()):
            raise ValueError(
                f"sensitivity: got 'adjoint' with the trainable solver {solver}, to whose parameters the continuous "
                f"adjoint has no gradient; use sensitivity='autograd', or freeze the solver"
            )
        learned = options["controller"]
        if learned is not None and any(p.requires_grad for p in learned.parameters()):
            raise ValueError(
                f"controller: got {learned} with parameters that are trained, with sensitivity='adjoint', which has no "
                f"gradient to them; use sensitivity='autograd', or freeze it"
            )
        if not Save.of(options["save"]).only_outputs:
            raise ValueError(
                f"save: got {options['save']!r} with sensitivity='adjoint', which differentiates the states at t_span "
                f"alone; use save='t_span', sensitivity='autograd' or torch.no_grad()"
            )
        controller = choose_controller(options["controller"], stepper(solver), options["step_size"])
        if controller.adaptive and self.solver is not None and stepper(self.solver).error_order is None:
            raise ValueError(
                f"sensitivity: got {self}, whose solver cannot choose its steps, with a forward solve that has no grid "
                f"of steps to follow; use an adaptive solver backward, or step_size"
            )


@dataclass
class _Problem:
    """What the forward and the backward solve share, and the forward solution."""

    field: RecalledField
    algorithm: Backsolve
    options: dict[str, Any]
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
        return dyn_numerics.odeint(f, x0, t_span, args=args, **self.options)

    @property
    def samples(self) -> int:
        """Number of leading dimensions of the state that count samples, each a problem of its own."""
        return 1 if self.options["stepping"] == "per_sample" else 0

    def pull_back(
        self,
        t: Tensor,
        state: Sequence[Tensor],
        cotangent: Sequence[Tensor],
        wanted: Sequence[Tensor],
        extra: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As `RecalledField.pull_back`, at one time `[]` for all samples."""
        if self.samples:
            leaf = state[0]
            is_tensor = self.field.state_structure.is_leaf()
            t = t.expand(len(leaf)).reshape(-1, *[1] * (leaf.dim() - 1 if is_tensor else 0))
        return self.field.pull_back(t, state, cotangent, wanted, extra)

    def solve_back(
        self,
        times: Tensor,
        state: Sequence[Tensor],
        adjoint: Sequence[Tensor],
        quadrature: Sequence[Tensor],
        wanted: Sequence[Tensor],
        extra: Sequence[Tensor],
        alive: Tensor,
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

        Returns:
            The adjoint and the gradients at the first time.
        """
        n, options = self.field.n_state, self.algorithm.backward(self.options)

        def field(t: Tensor, augmented: Any) -> Any:
            x, a, _ = augmented
            slope, products = self.pull_back(t, x, [-leaf for leaf in a], wanted, extra)
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
            raise
        _, adjoint, quadrature = solution.x
        return [leaf[-1] for leaf in adjoint], [leaf[-1] for leaf in quadrature]


class _BacksolveFunction(torch.autograd.Function):
    """Maps times, state, args and parameters to the leaves of the states at the times."""

    @staticmethod
    def forward(problem: _Problem, t_span: Tensor | Sequence[float], *inputs: Tensor) -> tuple[Tensor, ...]:
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
    problem: _Problem,
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
    adjoint = [torch.zeros_like(g[0]) for g in grad_x]
    quadrature = [torch.zeros_like(p) for p in (*wanted, *extra)]
    grad_t = torch.zeros_like(t)

    def along_slope(i: int, cotangent: Sequence[Tensor]) -> Tensor:
        """Derivative of the state at output `i` with respect to its time, contracted with a cotangent."""
        slope, _ = problem.pull_back(t[i], [leaf[i] for leaf in x], cotangent, wanted, extra)
        products = [(a.conj() * k).sum().real for a, k in zip(cotangent, slope, strict=True)]
        return torch.stack(products).sum()

    later = None  # the output that the adjoint belongs to
    for i in [*relevant, 0]:
        if later is not None and times[i] != times[later]:
            state = [leaf[later] for leaf in x]
            adjoint, quadrature = problem.solve_back(
                times[i : later + 1], state, adjoint, quadrature, wanted, extra, reached[later]
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


def _is_differentiable(t: Any) -> bool:
    return isinstance(t, Tensor) and is_differentiable(t)


def _least(tolerance: float | Tensor) -> float | Tensor:
    """A tolerance for a state of another structure: the strictest of those that were given."""
    return tolerance.min() if isinstance(tolerance, Tensor) else tolerance
