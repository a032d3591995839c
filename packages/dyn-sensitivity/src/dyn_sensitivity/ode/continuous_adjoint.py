"""What the continuous adjoints share: they solve an equation of the gradient backwards in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_unflatten

import dyn_numerics
from dyn_numerics import Save, Seminorm, Solution, SplitField, Status, Stepper
from dyn_numerics.arguments import check_initial_state, kind_of
from dyn_numerics.ode.arguments import (
    check_compact,
    check_tolerance,
    choose_controller,
    refuse_compiled,
    time_span,
    watched_events,
)
from dyn_numerics.ode.odeint import solve_observed
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import in_forward_mode, under_transform
from dyn_sensitivity.captured_tensors import refuse_tangents, refuse_tangents_in, refuse_undeclared
from dyn_sensitivity.ode.adjoint_function import AdjointFunction, Stretch
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.backward_solve import AdjointProblem
from dyn_sensitivity.ode.breaks import RecordBreaks
from dyn_sensitivity.ode.forward_conditions import ForwardConditions
from dyn_sensitivity.ode.held_tensors import event_functions
from dyn_sensitivity.ode.recalled_field import RecalledField
from dyn_sensitivity.ode.stretches import join

__all__ = ["BackwardNorm", "ContinuousAdjoint"]

_POSING = ("solver", "rtol", "atol", "step_size", "stepping", "controller", "save", "max_steps", "events")

BackwardNorm = Callable[[Any], Tensor] | Seminorm
"""Measures the error of a backward step: in the structure of what is solved, or a seminorm over parts of it."""


class ContinuousAdjoint(SensitivityAlgorithm):
    """A backward solve of the adjoint. Subclasses say where the state comes from and where parameter gradients go.

    Args:
        norm: Norm of the backward error, a function of the tuple of what is solved back to a tensor `[]`, or a seminorm over
            parts of it; None for the root mean square of all.
        solver: Method of the backward solve; that of the forward solve when None.
        rtol: Relative tolerance of the backward solve; that of the forward solve when None.
        atol: Absolute tolerance of the backward solve; that of the forward solve when None.
        quadrature: Whether the gradients of args and parameters are integrated over each step, instead of being solved for.
        checkpoints: Number of further states that are kept of the forward solve.

    Attributes:
        name: As users call it.
        recalls_state: Whether the state is read from the forward solution, instead of being solved back.

    Raises:
        TypeError: If the norm is no function or `Seminorm`, the solver no name or `Stepper`, or a tolerance no number.
        ValueError: If there is no solver of that name, or a tolerance is not positive.
    """

    name: ClassVar[str]
    recalls_state: ClassVar[bool]

    def __init__(
        self,
        norm: BackwardNorm | None,
        solver: str | Stepper | None,
        rtol: float | None,
        atol: float | None,
        quadrature: bool,
        checkpoints: int = 0,
    ) -> None:
        if not (norm is None or callable(norm) or isinstance(norm, Seminorm)):
            raise TypeError(f"norm: got {kind_of(norm)}, expected a function, a Seminorm or None; try Seminorm(0)")
        if solver is not None:
            stepper(solver)
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if tolerance is not None:
                check_tolerance(name, tolerance)
        self.norm = norm
        self.solver = solver
        self.rtol = rtol
        self.atol = atol
        self.quadrature = quadrature
        self.checkpoints = checkpoints

    def __repr__(self) -> str:
        given = (f"{name}={getattr(self, name)!r}" for name in signature(type(self)).parameters)
        return f"{type(self).__name__}({', '.join(given)})"

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
            ValueError: If gradients are wanted and the solver or the controller is trainable, something else than the
                states at `t_span` is to be saved, it is under torch.func or in forward mode, `f` is split, the backward
                solver cannot choose its steps or steps no adjoint, a jump leads elsewhere when it is made again, or `f` captures
                a differentiable tensor that it does not know.
        """
        if not torch.is_grad_enabled():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        if isinstance(f, SplitField):
            raise ValueError(
                f"f: got a SplitField with sensitivity={self.name!r}, whose backward solve is of no field in two parts; use "
                f"sensitivity='autograd', or torch.no_grad()"
            )
        if torch.compiler.is_compiling():
            refuse_compiled(**{name: options[name] for name in ("save", "events", "compact", "progress", "callbacks")})
            self._refuse_unsupported(options)
            self._refuse_broken(t_span, options)
            return self.solve_compiled(f, x0, t_span, args, options)
        if under_transform() and not in_forward_mode():  # whose derivatives are looked for by name
            raise ValueError(
                f"sensitivity: got {self.name!r} under torch.func, whose transforms its backward solve does not go through; use "
                f"sensitivity='autograd', or torch.autograd"
            )
        for name, value in (("x0", x0), ("t_span", t_span)):
            refuse_tangents_in(name, tree_leaves(value))
        self._refuse_unsupported(options)
        watched = watched_events(options["events"], len(args))
        for name, function in event_functions(watched, options["controller"]).items():
            refuse_tangents(function, (), name)
        return self._solve(f, x0, t_span, args, params, options)

    def _solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        options: dict[str, Any],
    ) -> Solution:
        """Solves forward without gradient, and has the solution differentiated by backward solves."""
        layout = check_initial_state(x0, options["stepping"] == "per_sample")
        field, inputs = RecalledField.of(f, x0, args, params)
        t, inner, _ = time_span(t_span, layout)  # which the user gets back as always, with their gradient
        if inner.dim() > 1 and self.checkpoints:
            raise ValueError(
                f"t_span: got times for each sample with {self}, whose checkpoints are at times of all; give t_span more times"
            )
        controller = options["controller"]
        stops = None if controller is None else controller.stops
        breaks_at_stops = stops is not None and (controller.jump is not None or inner.dim() > 1 or stops.dim() > 1)
        breaks = options["events"] not in ((), []) or breaks_at_stops
        if not breaks and not any(tensor.requires_grad for tensor in (inner, *inputs)):
            solution = dyn_numerics.odeint(f, x0, t_span, args=args, **options)
            refuse_undeclared(f, tree_leaves(solution.x), [])  # which f may need only sometimes
            return solution
        if breaks and layout.lead:  # samples have stretches of their own then, which pass stops at different places
            breaks_at_stops = stops is not None
        problem = AdjointProblem(
            name=self.name,
            field=field,
            layout=layout,
            conditions=ForwardConditions(layout.device),
            forward=options,
            backward=self.backward(options),
            recalls_state=self.recalls_state,
            quadrature=self.quadrature,
            checkpoints=self.checkpoints,
            stops=None if breaks_at_stops else stops,
            jumps=stops is not None and controller.jumps,
        )
        posing = {name: options[name] for name in _POSING}
        check_compact(options["compact"], options["stepping"])
        _, wanted, extra = field.split(inputs)
        times, at_outputs = self._with_checkpoints(inner)
        with torch.no_grad():
            save = "dense" if self.recalls_state else options["save"]
            posed = pose(field.observed(wanted, extra), x0, times, args=args, **{**posing, "save": save})
            record = RecordBreaks(posed, breaks_at_stops)
            handed = {name: options[name] for name in ("compact", "progress", "callbacks", "throw")}
            solution = solve_observed(posed, [record] if breaks else [], **handed)
        problem = replace(problem, first_step=self._first_step(solution, layout))
        dense, x, events, n_evals = solution.dense, solution.x, solution.events, solution.stats.n_evals
        if breaks:
            found = record.result()
            posed = pose(f, x0, times, args=args, **posing)
            x, events = join(problem, posed, layout.flatten(x), found, dense, [*wanted, *extra])
            x, n_evals = layout.unflatten(x), n_evals + len(found)
        else:
            parts = () if dense is None else (dense.t, dense.coefficients)
            leaves = AdjointFunction.apply(problem, Stretch(tuple(tree_leaves(x)), parts), times, *inputs)  # type: ignore[no-untyped-call]
            x = tree_unflatten(list(leaves), field.state_structure)
        if len(at_outputs) < len(times):
            x = tree_map(lambda leaf: leaf[at_outputs], x)
        return replace(
            solution,
            t=t,
            x=x,
            stats=replace(solution.stats, n_evals=n_evals),
            events=events,
            dense=None,
            _resumption=f"of sensitivity={self.name!r}, expected one of sensitivity='autograd'",
        )

    def _with_checkpoints(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The output times with those of checkpoints among them, and where the former are."""
        outputs = torch.arange(len(t), device=t.device)
        if not self.checkpoints or bool(t[0] == t[-1]):
            return t, outputs
        share = torch.arange(1, self.checkpoints + 1, dtype=t.dtype, device=t.device) / (self.checkpoints + 1)
        more = torch.lerp(t[0], t[-1], share).detach()
        more = more[~torch.isin(more, t.detach())]
        order = torch.cat([t.detach(), more]).argsort(descending=bool(t[-1] < t[0]))
        place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=t.device))
        return torch.cat([t, more])[order], place[: len(t)]

    def _first_step(self, solution: Solution, layout: StateLayout) -> float | None:
        """Magnitude of the first backward step, one as long as those of the forward solve; None to have it estimated."""
        code = int(solution.status_code) if not layout.lead else None
        if not self.begins_alike or code not in (Status.SUCCESS.code, Status.EVENT.code):
            return None
        # The last step may have been cut short.
        mean = (solution.t_reached - solution.t[0]).abs() / solution.stats.n_accepted
        return torch.maximum(mean, solution.dt_last).item() or None

    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        """As `solve`, inside of torch.compile with gradients enabled.

        Raises:
            ValueError: If it cannot be compiled.
        """
        raise ValueError(
            f"sensitivity: got {self.name!r} inside torch.compile, which keeps no solution as a function of time; use "
            f"sensitivity='adjoint' or 'autograd', or solve outside of it"
        )

    @property
    def begins_alike(self) -> bool:
        """Whether the backward solve may begin with a step as long as those of the forward one."""
        return self.solver is None and self.rtol is None and self.atol is None

    def backward(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of the backward solve, from those of the forward one; both by the names of `dyn_numerics.odeint`."""
        solver = stepper(options["solver"] if self.solver is None else self.solver)
        controller = choose_controller(options["controller"], solver, options["step_size"])
        return {
            "solver": solver,
            "rtol": _least(options["rtol"]) if self.rtol is None else self.rtol,
            "atol": _least(options["atol"]) if self.atol is None else self.atol,
            "step_size": options["step_size"],
            "controller": controller.without_stops().with_norm(self.norm),
            "max_steps": options["max_steps"],
        }

    def _refuse_unsupported(self, options: dict[str, Any]) -> None:
        name = f"sensitivity={self.name!r}"
        solver = options["solver"]
        if isinstance(solver, Stepper) and any(p.requires_grad for p in solver.parameters()):
            raise ValueError(
                f"sensitivity: got {self.name!r} with the trainable solver {solver}, to whose parameters the continuous "
                f"adjoint has no gradient; use sensitivity='autograd', or freeze the solver"
            )
        controller = options["controller"]
        if controller is not None and any(p.requires_grad for p in controller.parameters()):
            raise ValueError(
                f"controller: got {controller} with parameters that are trained, with {name}, which has no "
                f"gradient to them; use sensitivity='autograd', or freeze it"
            )
        if not Save.of(options["save"]).only_outputs:
            raise ValueError(
                f"save: got {options['save']!r} with {name}, which differentiates the states at t_span "
                f"alone; use save='t_span', sensitivity='autograd' or torch.no_grad()"
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
                f"give {type(self).__name__}(solver=...) another, such as 'dopri5', or use 'autograd'"
            )
        adaptive = choose_controller(controller, stepper(solver), options["step_size"]).adaptive
        if adaptive and self.solver is not None and stepper(self.solver).error_order is None:
            raise ValueError(
                f"sensitivity: got {self}, whose solver cannot choose its steps, with a forward solve that has no grid "
                f"of steps to follow; use an adaptive solver backward, or step_size"
            )
        if self.checkpoints and not adaptive and options["step_size"] is None:
            raise ValueError(
                f"sensitivity: got {self} with checkpoints and steps on t_span, which would end at them; use step_size, or "
                f"give t_span more times"
            )

    def _refuse_broken(self, t_span: Tensor | Sequence[float], options: dict[str, Any]) -> None:
        """Refuses what compiled backward solves do not pass."""
        where = f"with sensitivity={self.name!r} inside torch.compile"
        if isinstance(t_span, Tensor) and t_span.dim() > 1:
            raise ValueError(f"t_span: got times for each sample {where}, expected [T]; use sensitivity='autograd'")
        controller = options["controller"]
        if controller is not None and controller.jump is not None:
            raise ValueError(
                f"controller: got one with a jump of the state {where}, whose backward solve does not make it; solve "
                f"outside of it"
            )


def _least(tolerance: float | Tensor) -> float | Tensor:
    """A tolerance for a state of another structure: the strictest of those that were given."""
    return tolerance.min() if isinstance(tolerance, Tensor) else tolerance
