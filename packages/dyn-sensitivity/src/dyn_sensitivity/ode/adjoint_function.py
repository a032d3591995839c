"""The forward and the backward solve of a continuous adjoint, as one differentiable function."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_unflatten

import dyn_numerics
from dyn_numerics import Solution, SolverError, Status
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.norms import rms_norm
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.odeint import solve_observed
from dyn_numerics.ode.posed import pose
from dyn_numerics.ode.scalar import Scalar, where
from dyn_numerics.ode.times import host_numbers, time_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substituted, substitutes
from dyn_sensitivity.ode.adjoint_equation import AdjointEquation, where_samples
from dyn_sensitivity.ode.forward_conditions import ForwardConditions
from dyn_sensitivity.ode.parameter_quadrature import ParameterQuadrature
from dyn_sensitivity.ode.recalled_field import RecalledField, hooks_set_aside
from dyn_sensitivity.ode.second_derivatives import refuse_second_derivatives

__all__ = ["AdjointFunction", "AdjointProblem"]

MOST_DRIFT = 1000.0
"""How far a state that is solved back may be from that of the forward solve, in units of the tolerance, without a warning."""


@dataclass
class AdjointProblem:
    """What the forward and the backward solve share, and the forward solution.

    Attributes:
        name: Name of the algorithm.
        field: The field.
        layout: Layout of the state.
        conditions: What the field computes under in the forward solve.
        forward: Options of the forward solve, by the names of `dyn_numerics.odeint`.
        backward: Those of the backward one.
        recalls_state: Whether the state is read from the forward solution as a function of time.
        quadrature: Whether the gradients of args and parameters are integrated over each step.
        checkpoints: Number of states that the forward solve keeps beside the outputs.
        begins_alike: Whether the backward solve may begin with a step as long as those of the forward one.
        forward_solution: What the forward solve found, until it is handed over.
        kept: What it keeps beside the outputs: times and leaves of the states there, or the ends of its steps and their
            coefficients.
        first_step: Magnitude of the first backward step; None to have it estimated.
    """

    name: str
    field: RecalledField
    layout: StateLayout
    conditions: ForwardConditions
    forward: dict[str, Any]
    backward: dict[str, Any]
    recalls_state: bool
    quadrature: bool
    checkpoints: int
    begins_alike: bool
    forward_solution: Solution | None = None
    kept: tuple[Tensor, ...] = ()
    first_step: float | None = None

    def take_solution(self) -> Solution:
        """Hands the forward solution over: kept here, its states would hold the graph that holds this problem."""
        solution, self.forward_solution = self.forward_solution, None
        if solution is None:
            raise RuntimeError("the forward solve has not run")
        return solution

    @property
    def samples(self) -> int:
        """Number of leading dimensions of the state that count samples, each a problem of its own."""
        return len(self.layout.lead)

    def solve_forward(self, t: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Solves the user's problem, and returns the leaves of the states at the output times."""
        state, wanted, extra = self.field.split(inputs)
        f, args = self.field.observed(wanted, extra), self.field.args_with(wanted)
        x0 = tree_unflatten(state, self.field.state_structure)
        options = {**self.forward, "save": "dense"} if self.recalls_state else self.forward
        times, at_outputs, between = self._with_checkpoints(t)
        solution = dyn_numerics.odeint(f, x0, times, args=args, **options)
        x = tree_leaves(solution.x)
        if len(between):
            self.kept = (times[between], *(leaf[between] for leaf in x))
            x = [leaf[at_outputs] for leaf in x]
        if solution.dense is not None:
            self.kept = solution.dense.t, solution.dense.coefficients
        self.forward_solution = solution
        if self.begins_alike and not self.samples and bool(solution.status_code == Status.SUCCESS.code):
            # The last step may have been cut short.
            mean = (solution.t[-1] - solution.t[0]).abs() / solution.stats.n_accepted
            self.first_step = torch.maximum(mean, solution.dt_last).item() or None
        return x

    def _with_checkpoints(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output times `[T]` with those of checkpoints among them, and where the former and the latter are."""
        outputs = torch.arange(len(t), device=t.device)
        if not self.checkpoints or bool(t[0] == t[-1]):
            return t, outputs, outputs[:0]
        inner = t.to(time_dtype(t.device))
        share = torch.arange(1, self.checkpoints + 1, dtype=inner.dtype, device=t.device) / (self.checkpoints + 1)
        more = torch.lerp(inner[0], inner[-1], share)
        more = more[~torch.isin(more, inner)]
        order = torch.cat([inner, more]).argsort(descending=bool(inner[-1] < inner[0]))
        place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=t.device))
        return torch.cat([inner, more])[order], place[: len(t)], place[len(t) :]


class AdjointFunction(torch.autograd.Function):
    """Maps times, state, args and parameters to the leaves of the states at the times."""

    @staticmethod
    def forward(problem: AdjointProblem, t_span: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(problem.solve_forward(t_span, inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        problem, t, *tensors = inputs
        ctx.problem = problem
        kept, problem.kept = problem.kept, ()
        # The constants, to notice when they are written to.
        ctx.save_for_backward(t, *output, *tensors, *kept, *problem.field.constants)
        ctx.n_kept = len(kept)

    @staticmethod
    def backward(ctx: Any, *grad_x: Tensor) -> tuple[Tensor | None, ...]:
        t, *tensors = ctx.saved_tensors
        problem: AdjointProblem = ctx.problem
        n_state, n_inputs = problem.field.n_state, len(ctx.needs_input_grad) - 2
        x, inputs = tensors[:n_state], tensors[n_state : n_state + n_inputs]
        kept = tensors[n_state + n_inputs :][: ctx.n_kept]
        with torch.no_grad(), problem.conditions.restored(), hooks_set_aside(inputs):
            solve = _BackwardSolve(problem, t, x, kept, inputs)
            grad_t, grads = solve.gradients(grad_x, bool(ctx.needs_input_grad[1]))
        given = grads if grad_t is None else [grad_t, *grads]
        given = refuse_second_derivatives(problem.name, given, [t, *inputs, *grad_x])
        grad_t, grads = (None, given) if grad_t is None else (given[0], given[1:])
        return None, grad_t, *grads


class _BackwardSolve:
    """Carries the loss's derivative from the outputs back to the times and the inputs.

    Args:
        problem: The problem.
        t: Output times `[T]`.
        x: Leaves of the states there, `[T, ...]`.
        kept: What the forward solve kept besides.
        inputs: State, args and parameters.
    """

    def __init__(
        self,
        problem: AdjointProblem,
        t: Tensor,
        x: Sequence[Tensor],
        kept: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        self._problem, self._t, self._x, self._kept, self._inputs = problem, t, x, kept, inputs
        _, self._wanted, self._extra = problem.field.split(inputs)
        self._times = t.to(time_dtype(x[0].device))

    def gradients(self, grad_x: Sequence[Tensor], wants_times: bool) -> tuple[Tensor | None, list[Tensor]]:
        """The derivatives with respect to the times, or None, and with respect to the inputs.

        Args:
            grad_x: Derivative of the loss with respect to the leaves of the states.
            wants_times: Whether the derivative with respect to the times is wanted.
        """
        problem, t = self._problem, self._t
        reached = self._reached(self._x)  # [T] or [T, batch]
        grad_x = [where(reached, g, torch.zeros_like(g)) for g in grad_x]
        relevant, finite = _outputs_with_gradient(grad_x)
        if not finite:  # as anywhere in PyTorch; loss scaling in mixed precision counts on it
            nan = [torch.full_like(p, torch.nan) for p in self._inputs]
            return torch.full_like(t, torch.nan) if wants_times else None, nan
        # From an output that it did not reach a sample stands still at its start; if it got nowhere, at another's.
        places = substitutes(reached[1:].any(0)) if problem.samples and reached.numel() else None
        start = [substituted(places, leaf[0]) for leaf in self._x]
        x = [where(reached, leaf, first.expand_as(leaf)) for leaf, first in zip(self._x, start, strict=True)]
        self._field = replace(problem.field, places=places)
        if relevant or wants_times:
            problem.field.refuse_changed(self._wanted, self._extra)

        adjoint = [torch.zeros_like(g[0]) for g in grad_x]
        shares = self._no_shares()
        if relevant and self._times[relevant[0]] == self._times[0]:  # nothing moves in a span of no length
            adjoint = [g[relevant].sum(0) for g in grad_x]
        elif relevant:
            adjoint, shares = self._solve(relevant, x, grad_x)
        grad_t = None
        if wants_times:
            grad_t = torch.zeros_like(t)
            for i in relevant:
                grad_t[i] = self._along_slope(i, x, [g[i] for g in grad_x], reached)
            grad_t[0] = -self._along_slope(0, x, adjoint, reached)
        return grad_t, [*(a + g[0] for a, g in zip(adjoint, grad_x, strict=True)), *shares]

    def _solve(
        self, relevant: list[int], x: Sequence[Tensor], grad_x: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The adjoint at the first time, and the gradients of args and parameters.

        Args:
            relevant: The outputs that the loss depends on, the last first.
            x: Leaves of the states at all.
            grad_x: Derivative of the loss with respect to them.
        """
        problem, options, last = self._problem, self._problem.backward, relevant[0]
        solves_gradients = not problem.quadrature
        start = ([leaf[last] for leaf in x], [g[last] for g in grad_x], self._no_shares())
        equation = AdjointEquation(
            self._field,
            start,
            self._wanted,
            self._extra,
            trajectory=self._trajectory() if problem.recalls_state else None,
            solves_gradients=solves_gradients,
            start=self._times[0],
            samples=problem.samples,
        )
        controller = options["controller"]
        if controller.adaptive:
            units = [
                max(torch.as_tensor(options[name]).item(), torch.as_tensor(problem.forward[name]).min().item())
                for name in ("rtol", "atol")
            ]
        else:  # without a tolerance a drift of the size of the state is one of MOST_DRIFT
            largest = max(leaf[: last + 1].abs().amax().item() for leaf in x if leaf.numel())
            units = [1 / MOST_DRIFT, largest / MOST_DRIFT or 1.0]
        kicks = Kicks(equation, self._stops(relevant, x, grad_x), *units)
        observers = [ParameterQuadrature(equation)] if problem.quadrature else []

        on_grid = not controller.adaptive and options["step_size"] is None
        times = self._times[: last + 1].flip(0) if on_grid else self._times[[last, 0]]
        if problem.first_step is not None:
            controller = controller.with_first_step(problem.first_step)
        posed = pose(equation, equation.solved(*start), times, **{**options, "controller": controller})
        stops = [self._times.new_tensor(list(kicks.stops))]
        if controller.stops is not None:
            stops.append(controller.stops.to(self._times))
        clock = posed.problem.clock.with_stops(torch.cat(stops), controller.jumps, kicks)
        # Gauss's nodes are within steps.
        completes = posed.problem.completes or problem.quadrature
        posed = replace(posed, problem=replace(posed.problem, f=equation, clock=clock, completes=completes))
        try:
            solution = solve_observed(posed, observers)
        except SolverError as error:
            raise self._failure(error) from error
        state, adjoint, shares = equation.parts(equation.layout.flatten(tree_map(lambda leaf: leaf[-1], solution.x)))
        if state:
            kicks.measure(state, [leaf[0] for leaf in x], adjoint)
            self._warn(kicks.drift, controller.adaptive)
        return adjoint, shares if solves_gradients else observers[0].total

    def _stops(
        self, relevant: list[int], x: Sequence[Tensor], grad_x: Sequence[Tensor]
    ) -> dict[float, tuple[list[Tensor], list[Tensor] | None]]:
        """The states that were kept between the first time and the last relevant one, and what the loss says of them."""
        found: dict[float, tuple[list[Tensor], list[Tensor] | None]] = {}
        first, last = host_numbers(self._times[[0, relevant[0]]])
        if not self._problem.recalls_state and self._kept:
            for t, *state in zip(host_numbers(self._kept[0]), *self._kept[1:], strict=True):
                if min(first, last) < t < max(first, last):
                    found[t] = state, None
        for i, t in zip(relevant[1:], host_numbers(self._times[relevant[1:]]), strict=True):
            found[t] = [leaf[i] for leaf in x], [g[i] for g in grad_x]
        return found

    def _trajectory(self) -> Callable[[Tensor], list[Tensor]]:
        """The state as a function of time."""
        dense = DenseSolution(self._kept[0], self._kept[1], self._problem.layout)
        return lambda t: tree_leaves(dense(t))

    def _no_shares(self) -> list[Tensor]:
        return [torch.zeros_like(p) for p in (*self._wanted, *self._extra)]

    def _reached(self, x: Sequence[Tensor]) -> Tensor:
        """Which outputs the forward solve reached, `[T]` or `[T, batch]`."""
        dims = 1 + self._problem.samples
        finite = [torch.isfinite(leaf).reshape(*leaf.shape[:dims], leaf.shape[dims:].numel()) for leaf in x]
        return torch.stack([leaf.all(-1) for leaf in finite]).all(0)

    def _along_slope(self, i: int, x: Sequence[Tensor], cotangent: Sequence[Tensor], reached: Tensor) -> Tensor:
        """Derivative of the state at output `i` with respect to its time, contracted with a cotangent."""
        state, t = [leaf[i] for leaf in x], self._t[i]
        controller = self._problem.backward["controller"]
        if controller.jumps:  # of the two sides of an output the one that is within the solve
            within = self._t[0] if i else self._t[-1]
            dtype = real_dtype(self._problem.layout.dtype)
            t = torch.nextafter(t.to(dtype), within.to(dtype))
        if self._problem.samples:
            t = torch.where(reached[i], t, self._t[0].to(t.dtype))
        now = self._field.time_of(t, state)
        slope = self._field.pull_back(now, state, cotangent, self._wanted, self._extra, by_state=False, by_rest=False)[
            0
        ]
        return torch.stack([(a.conj() * k).sum().real for a, k in zip(cotangent, slope, strict=True)]).sum()

    def _failure(self, error: SolverError) -> SolverError:
        """The error of a backward solve, which says so."""
        other = "'autograd'" if self._problem.recalls_state else "'interpolated_adjoint' or 'autograd'"
        failed = ""
        if self._problem.samples and not bool(self._reached(self._x).all()):
            failed = " Some samples failed before: what belongs to samples in args has to be a PerSample then."
        return type(error)(
            f"sensitivity={self._problem.name!r}: the backward solve did not reach the first time; try {other}. "
            f"{error}{failed}",
            error.solution,
            error.status,
        )

    def _warn(self, drift: Tensor, adaptive: bool) -> None:
        """Warns of a state that was solved back to elsewhere than it came from."""
        if bool(drift > MOST_DRIFT):
            amount, unit = (drift, "tolerances") if adaptive else (drift / MOST_DRIFT, "times its size")
            # To the nearest power of ten: a message that stays the same is shown once.
            warnings.warn(
                f"sensitivity={self._problem.name!r}: the state that was solved back is about 1e{amount.log10().item():.0f} "
                f"{unit} away from that of the forward solve, and the gradient may be as inaccurate: the solution contracts or is "
                f"chaotic. Try 'interpolated_adjoint', 'autograd' or Backsolve(checkpoints=...).",
                stacklevel=2,
            )


class Kicks:
    """What happens to a backward solve at the outputs and checkpoints that it passes.

    The adjoint gets what the loss says of the output, and the state is put back to that of the forward solve.

    Args:
        equation: The equation that is solved.
        stops: Leaves of the state at the times, and the loss's derivative with respect to them, None where there is no output.
        rtol: The relative tolerance by which a drift is measured.
        atol: The absolute one.

    Attributes:
        stops: The times, and what there is.
        drift: Greatest distance of the state from that of the forward solve so far, in units of the tolerance.
    """

    def __init__(
        self,
        equation: AdjointEquation,
        stops: dict[float, tuple[list[Tensor], list[Tensor] | None]],
        rtol: float,
        atol: float,
    ) -> None:
        self.stops = stops
        self.drift = torch.zeros(())
        self._equation, self._rtol, self._atol = equation, rtol, atol

    def take(self, samples: Tensor) -> Kicks:
        """That of some of the samples: it is of all."""
        return self

    def __call__(self, t: Scalar, vector: Tensor) -> Tensor:
        """What a vector `[N]` becomes at a time."""
        stored, gradient = self.stops.get(t, (None, None))  # type: ignore[arg-type]
        if stored is None:  # a stop of the forward solve
            return vector
        state, adjoint, shares = self._equation.parts(vector)
        if state:
            self.measure(state, stored, adjoint)
        if gradient is not None:
            adjoint = [a + g for a, g in zip(adjoint, gradient, strict=True)]
        if state:
            alive = self._equation.alive(adjoint)
            state = [x if alive is None else where_samples(alive, x, y) for x, y in zip(stored, state, strict=True)]
        return self._equation.vector(state, adjoint, shares)

    def measure(self, state: Sequence[Tensor], stored: Sequence[Tensor], adjoint: Sequence[Tensor]) -> None:
        """Measures how far a state is from the one that was stored, where the adjoint says that it was solved back."""
        alive = self._equation.alive(adjoint)
        away = [(x - y) / (self._atol + self._rtol * y.abs()) for x, y in zip(state, stored, strict=True)]
        if alive is not None:
            away = [where_samples(alive, leaf, torch.zeros_like(leaf)) for leaf in away]
        drift = rms_norm(torch.cat([leaf.reshape(-1) for leaf in away]))
        self.drift = torch.maximum(self.drift.to(drift), drift)


def _outputs_with_gradient(grad_x: Sequence[Tensor]) -> tuple[list[int], bool]:
    """Indices of the outputs after the first that the loss depends on, the last first; and whether its derivative is finite."""
    count = len(grad_x[0])
    relevant = torch.stack([(g.reshape(count, -1) != 0).any(1) for g in grad_x]).any(0)
    finite = all(bool(torch.isfinite(g).all()) for g in grad_x)
    return [i for i in reversed(relevant.nonzero().flatten().tolist()) if i > 0], finite
