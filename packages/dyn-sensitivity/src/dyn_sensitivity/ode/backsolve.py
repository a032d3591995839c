"""The continuous adjoint, solved backwards together with the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_unflatten

import dyn_numerics
from dyn_numerics import Save, Seminorm, Solution, SplitField, Stepper
from dyn_numerics.arguments import check_initial_state
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.ode.arguments import (
    check_tolerance,
    choose_controller,
    refuse_compiled,
    time_span,
)
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.times import is_differentiable
from dyn_sensitivity.ode import compiled_backsolve
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.backsolve_function import BacksolveFunction, BacksolveProblem
from dyn_sensitivity.ode.recalled_field import RecalledField

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
            if that has fixed steps and it has no error estimate of its own. An implicit method, `"auto"` and one that knows
            the structure of the state do not step the adjoint: after such a forward solve name another, such as `"dopri5"`.
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
            ValueError: If gradients are wanted and the solver or the controller is trainable, every sample has times of
                its own, something else than the states at `t_span` is to be saved, there are events, `f` is split, the
                backward solver cannot choose its steps or steps no adjoint, or `f` captures a differentiable tensor that it does not know.
        """
        if not torch.is_grad_enabled():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        if isinstance(f, SplitField):
            raise ValueError(
                "f: got a SplitField with sensitivity='adjoint', whose backward solve is of no field in two parts; use "
                "sensitivity='autograd', or torch.no_grad()"
            )
        if torch.compiler.is_compiling():
            refuse_compiled(**{name: options[name] for name in ("save", "events", "compact", "progress", "callbacks")})
            self._refuse_unsupported(t_span, options)
            backward = self.backward(options)
            return with_constant_numbers(
                lambda: compiled_backsolve.solve(f, x0, t_span, args, options, backward),
            )
        self._refuse_unsupported(t_span, options)
        field, inputs = RecalledField.of(f, x0, args, params)
        problem = BacksolveProblem(field, options, self.backward(options))
        times: Tensor | Sequence[float] = t_span
        kept: dict[str, Any] = {"_resumption": "of sensitivity='adjoint', expected one of sensitivity='autograd'"}
        if any(_is_differentiable(t) for t in tree_leaves(t_span)):
            # The user gets the times back as always, with their gradient; several as one tensor, which has one.
            kept["t"], inner, _ = time_span(t_span, check_initial_state(x0))
            times = t_span if isinstance(t_span, Tensor) else inner
        x = BacksolveFunction.apply(problem, times, *inputs)  # type: ignore[no-untyped-call]
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
        if learned is not None and learned.jump is not None:
            raise ValueError(
                "controller: got one with a jump of the state with sensitivity='adjoint', whose backward solve does not "
                "make it; use sensitivity='autograd'"
            )
        if not Save.of(options["save"]).only_outputs:
            raise ValueError(
                f"save: got {options['save']!r} with sensitivity='adjoint', which differentiates the states at t_span "
                f"alone; use save='t_span', sensitivity='autograd' or torch.no_grad()"
            )
        if options["events"] not in ((), []):
            raise ValueError(
                "events: got some with sensitivity='adjoint', whose backward solve does not meet them; "
                "use sensitivity='autograd'"
            )
        backward = stepper(solver if self.solver is None else self.solver)
        reason = None
        if backward.split is not None:
            reason = "which steps a SplitField, and the adjoint is none"
        elif backward.implicit:
            reason = "which would need the Jacobian of the adjoint equation, by its parameters too"
        elif backward.structured:
            reason = "which knows the structure of the state but not of its adjoint"
        if reason is not None:
            raise ValueError(
                f"sensitivity: got {self} to solve backward by {type(backward).__name__}, {reason}; "
                f"give Backsolve(solver=...) another, such as 'dopri5', or use 'autograd'"
            )
        controller = choose_controller(options["controller"], stepper(solver), options["step_size"])
        if controller.adaptive and self.solver is not None and stepper(self.solver).error_order is None:
            raise ValueError(
                f"sensitivity: got {self}, whose solver cannot choose its steps, with a forward solve that has no grid "
                f"of steps to follow; use an adaptive solver backward, or step_size"
            )


def _is_differentiable(t: Any) -> bool:
    return isinstance(t, Tensor) and is_differentiable(t)


def _least(tolerance: float | Tensor) -> float | Tensor:
    """A tolerance for a state of another structure: the strictest of those that were given."""
    return tolerance.min() if isinstance(tolerance, Tensor) else tolerance
