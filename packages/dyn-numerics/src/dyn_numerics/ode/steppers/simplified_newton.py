"""The stages of a diagonally implicit Runge-Kutta step, solved by simplified Newton iterations.

A stage with the rise `w = dt f(t_i, X)` of the state `X = base + gamma w` takes `w` from `w + W^-1 (dt f(t_i, X) - w)`
with one matrix `W = I - gamma dt J` for all stages, and, while that converges, for several steps. Every problem goes
through its stages at its own pace: a round is one iteration of each, of whichever stage it is at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.loop import count_from_zero, repeat, when
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian
from dyn_numerics.ode.scalar import (
    Flag,
    Scalar,
    both,
    clip,
    either,
    magnitude,
    maximum,
    negate,
    over_state,
    power,
    where,
)
from dyn_numerics.ode.stepper import FlatField, Work
from dyn_numerics.ode.steppers.stage_rows import StageRows
from dyn_numerics.ode.times import state_time
from dyn_numerics.status import Status
from dyn_numerics.transforms import any_lane

__all__ = ["NewtonMatrix", "SimplifiedNewton", "SolvedStages"]

MOST_ITERATIONS = 10  # with one Jacobian
MOST_JACOBIANS = 2  # in one step that may be tried again; where Newton is slow, estimates of the error tell little
MOST_JACOBIANS_OF_FIXED_STEPS = 10
# The error that the iteration leaves in a stage, in units of the tolerance of a step.
ACCURACY = 0.1
ROUNDING = 20.0  # what an iterate may keep changing by, in units of its rounding
SHIFT_CHANGE = 0.3  # by how much the step may change before the matrix is factorised again
LEAST = 0.01
SLOW = 0.03  # a rate of convergence with which the next step has a new Jacobian


class NewtonMatrix(NamedTuple):
    """The matrix of the iteration, which is kept from step to step.

    Attributes:
        jacobian: `J`, as the `FieldJacobian` knows it.
        factors: Those of `W = I - shift J`.
        shift: Its shift, in time units.
        eta: Estimate of how much of the last change was left as an error when the iteration last converged.
        outdated: Whether the iteration was slow.
    """

    jacobian: Any
    factors: Any
    shift: Scalar
    eta: Scalar
    outdated: Flag


class SolvedStages(NamedTuple):
    """What the iteration found.

    Attributes:
        rises: `dt f` at every stage, `[*lead, N]` each.
        matrix: Its matrix.
        failed: Code of the status where it found none, 0 elsewhere.
        work: What it took.
        n_evals: Calls of `f`, as far as they are in a loop of a compiled program.
    """

    rises: tuple[Tensor, ...]
    matrix: NewtonMatrix
    failed: Any
    work: Work
    n_evals: Any


class _Iterates(NamedTuple):
    """Where every problem is in its step.

    Attributes:
        stage: The stage it is at; their number where all are solved.
        rises: Those of the stages that are solved.
        base: State of the stage but for its own rise.
        rise: The iterate.
        count: Iterations at this stage.
        size: Norm of the last change in units of the tolerance.
        eta: Estimate of the error left per change.
        slowest: Largest rate of convergence in the step.
        stalled: Whether the iteration does not converge, or not soon.
        diverged: Whether its changes grew.
        n_iterations: Iterations of the step.
        n_evals: Calls of `f`, by all problems together.
    """

    stage: Any
    rises: tuple[Tensor, ...]
    base: Tensor
    rise: Tensor
    count: Any
    size: Scalar
    eta: Scalar
    slowest: Scalar
    stalled: Flag
    diverged: Flag
    n_iterations: Any
    n_evals: Any


class SimplifiedNewton:
    """The iteration of one step.

    Args:
        f: Vector field on flat states, for loops.
        jacobian: What makes Jacobians and solves with them.
        norm: Norm in units of the tolerance.
        rows: The table.
        may_fail: Whether a step that fails is tried again, shorter.
        t0: Start of the step.
        t1: Its end.
        x: State at its start, `[*lead, N]`.
    """

    def __init__(
        self,
        f: FlatField,
        jacobian: FieldJacobian,
        norm: ErrorNorm,
        rows: StageRows,
        may_fail: bool,
        t0: Scalar,
        t1: Scalar,
        x: Tensor,
    ) -> None:
        self._most_jacobians = MOST_JACOBIANS if may_fail else MOST_JACOBIANS_OF_FIXED_STEPS
        self._f, self._jacobian, self._norm, self._rows = f, jacobian, norm, rows
        self._t0, self._t1, self._x = t0, t1, x
        self._dt = t1 - t0
        self._shift: Scalar = rows.gamma * self._dt
        eps = torch.finfo(x.dtype).eps
        self._eps = eps
        self._accuracy = maximum(2 * ROUNDING * eps * norm.of_half_the_state, ACCURACY)

    def solve(self, slope: Tensor, trend: tuple[Tensor, ...], ratio: Scalar, matrix: NewtonMatrix) -> SolvedStages:
        """Solves the stages.

        Args:
            slope: The field at the start, `[*lead, N]`.
            matrix: That of the step before.
        """
        none = torch.zeros_like(matrix.shift) if isinstance(matrix.shift, Tensor) else 0.0
        no_count: Any = none.to(torch.int64) if isinstance(none, Tensor) else 0
        rise = over_state(self._dt, slope) * slope
        rises = tuple([rise] * self._rows.first + [torch.zeros_like(rise)] * (self._rows.count - self._rows.first))
        first = no_count + self._rows.first
        self._rise_at_start = rise
        scale = over_state(ratio, rise)
        self._trend = []
        for part in trend:
            scale = scale * over_state(ratio, rise)
            self._trend.append(scale * part)
        start = _Iterates(
            stage=first,
            rises=rises,
            base=self._base(first, rises),
            rise=self._guess(first, rises),
            count=no_count,
            size=none,
            eta=matrix.eta,
            slowest=none,
            stalled=matrix.outdated,
            diverged=none != 0,
            n_iterations=no_count,
            n_evals=count_from_zero(self._x),
        )
        work = Work(no_count, no_count, no_count)
        now, matrix, work = repeat(self._unsolved, self._round, (start, matrix, work))
        failed = where(
            now.stage == self._rows.count,
            no_count,
            where(
                matrix.factors.singular if isinstance(none, Tensor) else any_lane(matrix.factors.singular),
                no_count + Status.SINGULAR_MATRIX.code,
                where(now.size < torch.inf, no_count + Status.NEWTON_DIVERGED.code, no_count + Status.NON_FINITE.code),
            ),
        )
        matrix = matrix._replace(eta=now.eta, outdated=now.slowest > SLOW)
        work = work._replace(n_iterations=now.n_iterations)
        return SolvedStages(now.rises, matrix, failed, work, now.n_evals)

    def _unsolved(self, now: _Iterates, matrix: NewtonMatrix, work: Work) -> Flag:
        given_up = both(now.stalled, work.n_jacobians == self._most_jacobians)
        return both(now.stage < self._rows.count, negate(given_up))

    def _round(self, now: _Iterates, matrix: NewtonMatrix, work: Work) -> tuple[Any, ...]:
        """One iteration of every problem, with another matrix where it did not converge with an old one.

        These wait for each other, until nobody iterates any more: matrices of all problems are made together.
        """
        begins = now.n_evals == 0
        waiting = both(self._unsolved(now, matrix, work), now.stalled)
        changed = magnitude(self._shift - matrix.shift) > SHIFT_CHANGE * magnitude(matrix.shift)
        iterating = self._iterating(now)
        if torch.compiler.is_compiling():
            renews = begins | ~iterating.any()  # type: ignore[union-attr]
        else:
            renews = begins or not any_lane(iterating)
        renewed = both(waiting, renews)
        refactored = both(either(renewed, both(changed, begins)), self._dt != 0)
        now = now._replace(
            stalled=both(now.stalled, negate(renewed)),
            rise=where(both(renewed, now.diverged), self._guess(now.stage, now.rises), now.rise),
            count=where(renewed, now.count * 0, now.count),
        )
        matrix, calls = self._renew(now, matrix, renewed, refactored)
        work = work._replace(
            n_jacobians=work.n_jacobians + renewed, n_factorisations=work.n_factorisations + refactored
        )
        return self._iterate(now._replace(n_evals=now.n_evals + calls), matrix), matrix, work

    def _renew(self, now: _Iterates, matrix: NewtonMatrix, renewed: Flag, refactored: Flag) -> tuple[NewtonMatrix, Any]:
        """Makes Jacobians and factors anew where they are wanted."""
        compiling = torch.compiler.is_compiling()
        none = count_from_zero(self._x)

        def linearised() -> tuple[Any, Any]:
            made = self._jacobian.linearise(self._f, *self._place(now)).jacobian
            return where(renewed, made, matrix.jacobian), none + 1

        def made() -> tuple[Any, Any, Any]:
            jacobian, calls = when(compiling or any_lane(renewed), linearised, lambda: (matrix.jacobian, none))
            factors = self._jacobian.factorise(jacobian, self._shift)
            return jacobian, where(refactored, factors, matrix.factors), calls

        some = refactored.any() if compiling else any_lane(refactored)  # type: ignore[union-attr]
        jacobian, factors, calls = when(some, made, lambda: (matrix.jacobian, matrix.factors, none))
        return NewtonMatrix(
            jacobian=jacobian,
            factors=factors,
            shift=where(refactored, self._shift, matrix.shift),
            eta=matrix.eta,
            outdated=matrix.outdated,
        ), calls

    def _iterating(self, now: _Iterates) -> Flag:
        return both(now.stage < self._rows.count, negate(now.stalled))

    def _place(self, now: _Iterates) -> tuple[Tensor, Tensor]:
        """Time and state of the stages, as far as they are known."""
        t = state_time(self._t1 - self._rows.before_end(now.stage) * self._dt, self._x)
        return t, now.base + self._rows.gamma * now.rise

    def _iterate(self, now: _Iterates, matrix: NewtonMatrix) -> _Iterates:
        """One iteration of every problem that still iterates."""
        going = self._iterating(now)
        t, at = self._place(now)
        residual = over_state(self._dt, at) * self._f(t, at) - now.rise
        # A matrix for another step size takes components that are stiff too far, or not far enough.
        correction = 2 / (1 + where(self._dt != 0, self._shift / matrix.shift, 1.0))
        solved = self._jacobian.solve(self._f, matrix.factors, residual)
        change = solved.x * over_state(correction, at)
        rise = now.rise + change
        size = self._norm.at(self._x, change)
        is_first = now.count == 0
        rate = where(is_first, size * 0, size / where(is_first, size * 0 + 1, now.size))
        left = where(rate < 1, rate / where(rate < 1, 1 - rate, 1.0), torch.inf)
        eta = where(is_first, clip(power(clip(now.eta, low=self._eps), 0.8), low=LEAST), left)
        count = now.count + 1
        accurate = either(eta * size <= self._accuracy, size <= ROUNDING * self._eps * self._norm.of_half_the_state)
        converged = both(going, accurate)
        left_then = eta * size * power(clip(rate, low=1e-3), MOST_ITERATIONS - count)
        hopeless = either(count == MOST_ITERATIONS, both(negate(is_first), negate(left_then <= self._accuracy)))
        lost = negate(size < torch.inf)
        stalled = either(now.stalled, both(both(going, negate(accurate)), either(hopeless, lost)))
        diverged = either(lost, rate >= 1)
        moved = both(going, size < torch.inf)
        now = now._replace(
            rise=where(moved, rise, now.rise),
            count=where(going, count, now.count),
            size=where(going, size, now.size),
            eta=where(converged, eta, now.eta),
            slowest=where(going, maximum(now.slowest, rate), now.slowest),
            stalled=stalled,
            diverged=where(going, diverged, now.diverged),
            n_iterations=now.n_iterations + going,
            n_evals=now.n_evals + 1 + solved.n_evals,
        )
        return now if converged is False else self._advance(now, converged)

    def _advance(self, now: _Iterates, converged: Flag) -> _Iterates:
        """Goes on to the next stage where the iteration has converged."""
        stage = now.stage + converged
        rises = tuple(where(both(converged, now.stage == j), now.rise, rise) for j, rise in enumerate(now.rises))
        return now._replace(
            stage=stage,
            rises=rises,
            base=where(converged, self._base(stage, rises), now.base),
            rise=where(converged, self._guess(stage, rises), now.rise),
            count=where(converged, now.count * 0, now.count),
        )

    def _base(self, stage: Any, rises: Sequence[Tensor]) -> Tensor:
        return _sum(self._rows.lower(stage), rises, self._x)

    def _guess(self, stage: Any, rises: Sequence[Tensor]) -> Tensor:
        return _sum(self._rows.predictor(stage), [self._rise_at_start, *rises, *self._trend], None)


def _sum(weights: Sequence[Scalar], rises: Sequence[Tensor], total: Tensor | None) -> Tensor:
    """`total + sum_j w_j rises_j`."""
    for weight, rise in zip(weights, rises, strict=False):
        if isinstance(weight, Tensor):
            term = weight.unsqueeze(-1) * rise
            total = term if total is None else total + term
        elif weight != 0:
            total = rise * weight if total is None else torch.add(total, rise, alpha=weight)
    return torch.zeros_like(rises[0]) if total is None else total
