"""The backward solve of a continuous adjoint, over a stretch on which the solution is smooth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from dyn_numerics import SolverError
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
from dyn_sensitivity.ode.pace import Pace
from dyn_sensitivity.ode.parameter_quadrature import ParameterQuadrature
from dyn_sensitivity.ode.recalled_field import RecalledField

__all__ = ["MOST_DRIFT", "AdjointProblem", "BackwardSolve"]

MOST_DRIFT = 1000.0
"""How far a state that is solved back may be from that of the forward solve, in units of the tolerance, without a warning."""


@dataclass(frozen=True)
class AdjointProblem:
    """What the forward and the backward solves share.

    Attributes:
        name: Name of the algorithm.
        field: The field.
        layout: Layout of the state.
        conditions: What the field computes under in the forward solve.
        forward: Options of the forward solve, by the names of `pose`.
        backward: Those of the backward one.
        recalls_state: Whether the state is read from the forward solution as a function of time.
        quadrature: Whether the gradients of args and parameters are integrated over each step.
        checkpoints: Number of times between the first and the last, evenly spaced, at which the state is kept besides.
        stops: Times to land on between those of a stretch, or None.
        jumps: Whether the field jumps at the stops of the controller.
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
    stops: Tensor | None
    jumps: bool
    first_step: float | None = None

    @property
    def samples(self) -> int:
        """Number of leading dimensions of the state that count samples, each a problem of its own."""
        return len(self.layout.lead)


class BackwardSolve:
    """Carries the loss's derivative from the outputs back to the times and the inputs.

    Args:
        problem: The problem.
        t: Times `[T]`, or `[T, batch]` of each sample.
        x: Leaves of the states there, `[T, ...]`.
        dense: Ends of the forward steps and coefficients of the solution, where the state is recalled.
        inputs: State, args and parameters.
    """

    def __init__(
        self,
        problem: AdjointProblem,
        t: Tensor,
        x: Sequence[Tensor],
        dense: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        self._problem, self._t, self._x, self._dense, self._inputs = problem, t, x, dense, inputs
        _, self._wanted, self._extra = problem.field.split(inputs)
        self._times = t.to(time_dtype(x[0].device))
        self._pace = Pace(self._times, real_dtype(problem.layout.dtype)) if t.dim() > 1 else None

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
        self._field, self._places = replace(problem.field, places=places), places
        if relevant or wants_times:
            problem.field.refuse_changed(self._wanted, self._extra)

        adjoint = [torch.zeros_like(g[0]) for g in grad_x]
        shares = self._no_shares()
        if relevant and bool(
            (self._times[relevant[0]] == self._times[0]).all()
        ):  # nothing moves in a span of no length
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
            start=self._times[0] if problem.recalls_state else self._start,
            samples=problem.samples,
            pace=self._pace,
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

        times, step_size = self._times[: last + 1].flip(0), options["step_size"]
        stops = [self._times.new_tensor(list(kicks.stops))]
        if self._pace is not None:
            times = torch.arange(last, -1, -1).to(self._times)
            longest = self._pace.longest
            step_size = None if step_size is None else 1 / ceil(longest / step_size)
            controller = controller.in_unit(longest)
        elif problem.stops is not None:
            stops.append(problem.stops.to(self._times))
        if controller.adaptive or step_size is not None:  # otherwise it steps on the times
            times = times[[0, -1]]
        if problem.first_step is not None and self._pace is None:
            controller = controller.with_first_step(problem.first_step)
        timing = {"step_size": step_size, "controller": controller}
        posed = pose(equation, equation.solved(*start), times, **{**options, **timing})
        # The rates of a pace jump where the outputs are.
        jumps = problem.jumps or self._pace is not None
        clock = posed.problem.clock.with_stops(torch.cat(stops), jumps, kicks)
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
        """The states between the first time and the last relevant one that are passed, and what the loss says of them.

        With checkpoints they are all passed, and where the variable is no time, which has kinks there.
        """
        passed: Sequence[int] = relevant[1:]
        if self._problem.checkpoints or self._pace is not None:
            passed = range(relevant[0] - 1, 0, -1)
        times = passed if self._pace is not None else host_numbers(self._times[list(passed)])
        return {
            float(t): ([leaf[i] for leaf in x], [g[i] for g in grad_x] if i in relevant else None)
            for i, t in zip(passed, times, strict=True)
        }

    def _trajectory(self) -> Callable[[Tensor], list[Tensor]]:
        """The state as a function of time."""
        dense = DenseSolution(self._dense[0], self._dense[1], self._problem.layout)
        return lambda t: tree_leaves(dense(t))

    @property
    def _start(self) -> Tensor:
        """The first time, `[]` or `[batch]`; that of another sample where a sample got nowhere."""
        return self._times[0] if self._pace is None else substituted(self._places, self._times[0])

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
        if self._problem.jumps:  # of the two sides of an output the one that is within the solve
            within = self._t[0] if i else self._t[-1]
            dtype = real_dtype(self._problem.layout.dtype)
            t = torch.nextafter(t.to(dtype), within.to(dtype))
        if self._problem.samples:
            t = torch.where(reached[i], t, self._start.to(t.dtype))
        now = self._field.time_of(t, state)
        slope = self._field.pull_back(now, state, cotangent, self._wanted, self._extra, by_state=False, by_rest=False)[
            0
        ]
        each = self._t.shape[1:]
        shares = [
            (a.conj() * k).real.reshape(*each, a.shape[len(each) :].numel()).sum(-1)
            for a, k in zip(cotangent, slope, strict=True)
        ]
        return torch.stack(shares).sum(0)

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
