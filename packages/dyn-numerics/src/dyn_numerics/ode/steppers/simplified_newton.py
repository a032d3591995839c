"""The stages of a diagonally implicit Runge-Kutta step, solved by simplified Newton iterations.

At a stage the rise `w = dt f(t, X)` is wanted, where `X = base + gamma w` and the base follows from the stages before. The
iteration adds `W^-1 (dt f(t, X) - w)` to `w`, with one matrix `W = I - gamma dt J` for all stages and, while that
converges, for several steps. Every problem goes through its stages at its own pace: a round is one iteration of each, of
whichever stage it is at.

References:
    - E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., section IV.8: rises, not slopes, and when to
      stop.
    - A. C. Hindmarsh et al.: SUNDIALS (2005), section 2.1: a matrix that was made for another step size.
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
from dyn_numerics.ode.steppers.weighted_sum import weighted_sum
from dyn_numerics.ode.times import state_time
from dyn_numerics.status import Status
from dyn_numerics.transforms import any_lane

__all__ = ["NewtonMatrix", "SimplifiedNewton", "SolvedStages", "Trend"]

ACCURACY = 0.1  # the error that is left in a stage, in units of the tolerance of the step
ROUNDING = 20.0  # what an iterate may keep changing by, in units of its rounding
MOST_ITERATIONS = 10  # with one Jacobian
MOST_JACOBIANS = 2  # in one step that may be tried again: where Newton is slow, estimates of the error tell little
MOST_JACOBIANS_OF_FIXED_STEPS = 100
SLOW = 0.03  # a rate of convergence with which the next step has a new Jacobian
SHIFT_CHANGE = 0.1  # by how much the step may change before the matrix is factorised again
LEAST_LEFT = 0.01  # of a first change, however fast the iteration was before
TINY = torch.finfo(torch.float32).tiny
LONGEST_TREND = 3.0  # a step so many times longer than the one before does not go on as that one did


class NewtonMatrix(NamedTuple):
    """The matrix of the iteration, which is kept from step to step.

    Attributes:
        jacobian: `J`, as the `FieldJacobian` knows it.
        factors: Those of `W = I - shift J`.
        shift: Its shift, in time units.
        defined: Whether the field is finite where the Jacobian was made.
        left: What share of a change was left as an error when the iteration last converged.
        outdated: Whether the iteration was slow.
    """

    jacobian: Any
    factors: Any
    shift: Scalar
    defined: Flag
    left: Scalar
    outdated: Flag


class Trend(NamedTuple):
    """How slopes went on in a step: the polynomial of `trend_rows`.

    Attributes:
        rises: Its coefficients times the length of the step, `[*lead, N]` each.
        length: The length of the step, in time units; 0 if there was none.
    """

    rises: tuple[Tensor, ...]
    length: Scalar


class SolvedStages(NamedTuple):
    """What the iteration found.

    Attributes:
        rises: `dt f` at every stage, `[*lead, N]` each.
        others: That of the part of the field that is not solved for; none without one.
        matrix: Its matrix.
        failed: Code of the status where it found none, 0 elsewhere.
        work: What it took.
        n_evals: Calls of `f`.
    """

    rises: tuple[Tensor, ...]
    others: tuple[Tensor, ...]
    matrix: NewtonMatrix
    failed: Any
    work: Work
    n_evals: Any


class _Iterates(NamedTuple):
    """Where every problem is in its step.

    Attributes:
        stage: The stage it is at; their number where all are solved.
        rises: Those of the stages that are solved.
        others: Those of the other part of the field.
        base: State of the stage but for its own rise.
        rise: The iterate.
        count: Iterations at this stage with this Jacobian.
        size: Norm of the last change in units of the tolerance.
        left: As in `NewtonMatrix`.
        slowest: Largest rate of convergence in the step.
        stalled: Whether the iteration does not converge, or not soon.
        diverged: Whether its changes grew.
        n_iterations: Iterations of the step.
        n_evals: Calls of `f`, by all problems together.
    """

    stage: Any
    rises: tuple[Tensor, ...]
    others: tuple[Tensor, ...]
    base: Tensor
    rise: Tensor
    count: Any
    size: Scalar
    left: Scalar
    slowest: Scalar
    stalled: Flag
    diverged: Flag
    n_iterations: Any
    n_evals: Any


class SimplifiedNewton:
    """The iteration of one step.

    Args:
        f: Vector field on flat states, for loops.
        other: The part of the field that is not solved for, or None.
        jac: What makes Jacobians and solves with them.
        norm: Norm in units of the tolerance.
        rows: The table.
        adaptive: Whether a step that fails is tried again, shorter.
        t0: Start of the step.
        t1: Its end.
        x: State at its start, `[*lead, N]`.
    """

    def __init__(
        self,
        f: FlatField,
        other: FlatField | None,
        jac: FieldJacobian,
        norm: ErrorNorm,
        rows: StageRows,
        adaptive: bool,
        t0: Scalar,
        t1: Scalar,
        x: Tensor,
    ) -> None:
        self._f, self._other, self._jac, self._norm, self._rows = f, other, jac, norm, rows
        self._adaptive = adaptive
        self._most_jacobians = MOST_JACOBIANS if adaptive else MOST_JACOBIANS_OF_FIXED_STEPS
        self._t1, self._dt, self._x = t1, t1 - t0, x
        self._shift: Scalar = rows.gamma * self._dt
        self._eps = torch.finfo(x.dtype).eps
        self._rounding = ROUNDING * self._eps * norm.of_half_the_state
        self._accuracy = maximum(2 * self._rounding, ACCURACY)
        self._known: list[Tensor] = []  # what predictions are made of beside the stages

    def solve(self, slopes: Sequence[Tensor], trend: Trend, matrix: NewtonMatrix) -> SolvedStages:
        """Solves the stages.

        Args:
            slopes: The field at the start, `[*lead, N]`, and the other part of it if there is one.
            trend: That of the step before.
            matrix: That of the step before.
        """
        rows, dt = self._rows, over_state(self._dt, self._x)
        none = torch.zeros_like(matrix.shift) if isinstance(matrix.shift, Tensor) else 0.0
        no_count: Any = none.to(torch.int64) if isinstance(none, Tensor) else 0
        at_start, *others = (dt * slope for slope in slopes)
        self._known = [at_start, *self._continued(trend)]
        zero = torch.zeros_like(at_start)
        first = no_count + rows.first
        rises = (at_start,) * rows.first + (zero,) * (rows.count - rows.first)
        known_others = tuple(rise for other in others for rise in (other, *[zero] * (rows.count - 1)))
        start = _Iterates(
            stage=first,
            rises=rises,
            others=known_others,
            base=self._base(first, rises, known_others),
            rise=self._guess(first, rises),
            count=no_count,
            size=none,
            left=matrix.left,
            slowest=none,
            stalled=matrix.outdated,
            diverged=none != 0,
            n_iterations=no_count,
            n_evals=count_from_zero(self._x),
        )
        work = Work(no_count, no_count, no_count)
        now, matrix, work = repeat(self._unsolved, self._round, (start, matrix, work))
        singular = matrix.factors.singular
        reason = where(now.size < torch.inf, no_count + Status.NEWTON_DIVERGED.code, no_count + Status.NON_FINITE.code)
        reason = where(
            both(matrix.defined, singular if isinstance(none, Tensor) else any_lane(singular)),
            no_count + Status.SINGULAR_MATRIX.code,
            reason,
        )
        return SolvedStages(
            rises=now.rises,
            others=now.others,
            matrix=matrix._replace(left=now.left, outdated=now.slowest > SLOW + self._mismatch(matrix)),
            failed=where(now.stage == rows.count, no_count, reason),
            work=work._replace(n_iterations=now.n_iterations),
            n_evals=now.n_evals,
        )

    def _continued(self, trend: Trend) -> list[Tensor]:
        """What each power of time adds to rises, if slopes go on as in the step before."""
        known = trend.length != 0
        ratio = where(known, self._dt / where(known, trend.length, 1.0), 0.0)
        ratio = over_state(where(ratio <= LONGEST_TREND, ratio, 0.0), self._x)
        scale, found = ratio, []
        for rise in trend.rises:
            scale = scale * ratio
            found.append(scale * rise)
        return found

    def _mismatch(self, matrix: NewtonMatrix) -> Scalar:
        """The rate at which the iteration converges with the true Jacobian and a matrix for another step size."""
        return magnitude(self._shift - matrix.shift) / maximum(magnitude(self._shift + matrix.shift), TINY)

    def _unsolved(self, now: _Iterates, matrix: NewtonMatrix, work: Work) -> Flag:
        given_up = both(now.stalled, work.n_jacobians == self._most_jacobians)
        return both(now.stage < self._rows.count, negate(given_up))

    def _iterating(self, now: _Iterates) -> Flag:
        return both(now.stage < self._rows.count, negate(now.stalled))

    def _round(self, now: _Iterates, matrix: NewtonMatrix, work: Work) -> tuple[_Iterates, NewtonMatrix, Work]:
        """One iteration of every problem, with another matrix where it did not converge with an old one.

        These wait for each other, until nobody iterates any more: matrices of all problems are made together.
        """
        begins = now.n_evals == 0
        waiting = both(self._unsolved(now, matrix, work), now.stalled)
        changed = magnitude(self._shift - matrix.shift) > SHIFT_CHANGE * magnitude(matrix.shift)
        renewed = both(waiting, either(begins, negate(_some(self._iterating(now)))))
        refactored = both(either(renewed, both(changed, begins)), self._dt != 0)
        misled = both(both(renewed, now.diverged), work.n_jacobians == 0)  # by the Jacobian of another step
        now = now._replace(
            stalled=both(now.stalled, negate(renewed)),
            rise=where(misled, self._guess(now.stage, now.rises), now.rise),
            count=where(renewed, now.count * 0, now.count),
        )
        matrix, calls = self._renew(now, matrix, renewed, refactored)
        work = work._replace(
            n_jacobians=work.n_jacobians + renewed, n_factorisations=work.n_factorisations + refactored
        )
        return self._iterate(now._replace(n_evals=now.n_evals + calls), matrix), matrix, work

    def _renew(self, now: _Iterates, matrix: NewtonMatrix, renewed: Flag, refactored: Flag) -> tuple[NewtonMatrix, Any]:
        """Makes Jacobians and factors anew where they are wanted; the calls of `f` that it took."""
        none = count_from_zero(self._x)

        def linearised() -> tuple[Any, Any, Any]:
            slope, _, made = self._jac.linearise(self._f, *self._place(now))
            finite = torch.isfinite(slope).all(-1)
            defined = finite if isinstance(matrix.defined, Tensor) else any_lane(finite)
            return where(renewed, made, matrix.jacobian), where(renewed, defined, matrix.defined), none + 1

        def kept() -> tuple[Any, Any, Any]:
            return matrix.jacobian, matrix.defined, none

        def made() -> tuple[Any, ...]:
            # A choice within a choice takes a program longer to compile than a Jacobian takes to make.
            wanted = torch.compiler.is_compiling() or _some(renewed)
            jacobian, defined, calls = when(wanted, linearised, kept)
            factors = where(refactored, self._jac.factorise(jacobian, self._shift), matrix.factors)
            return jacobian, defined, calls, factors

        jacobian, defined, calls, factors = when(_some(refactored), made, lambda: (*kept(), matrix.factors))
        shift = where(refactored, self._shift, matrix.shift)
        return matrix._replace(jacobian=jacobian, factors=factors, shift=shift, defined=defined), calls

    def _iterate(self, now: _Iterates, matrix: NewtonMatrix) -> _Iterates:
        """One iteration of every problem that still iterates."""
        going = self._iterating(now)
        t, at = self._place(now)
        residual = over_state(self._dt, at) * self._f(t, at) - now.rise
        solved = self._jac.solve(self._f, matrix.factors, residual)
        # A matrix for another step size takes stiff components too far, or not far enough.
        change = solved.x * over_state(2 / (1 + where(self._dt != 0, self._shift / matrix.shift, 1.0)), at)
        size, count, is_first = self._norm.at(self._x, change), now.count + 1, now.count == 0
        rate = where(is_first, size * 0, size / where(is_first, size * 0 + 1, now.size))
        shrinks = rate < 1
        left = where(shrinks, rate / where(shrinks, 1 - rate, 1.0), torch.inf)
        left = where(is_first, clip(power(clip(now.left, low=self._eps), 0.8), low=LEAST_LEFT), left)
        accurate = either(left * size <= self._accuracy, size <= self._rounding)
        in_the_end = left * size * power(clip(rate, low=1e-3), MOST_ITERATIONS - count)
        hopeless = either(count == MOST_ITERATIONS, both(negate(is_first), negate(in_the_end <= self._accuracy)))
        lost = negate(size < torch.inf)
        converged = both(going, accurate)
        now = now._replace(
            rise=where(both(going, size < torch.inf), now.rise + change, now.rise),
            count=where(going, count, now.count),
            size=where(going, size, now.size),
            left=where(converged, left, now.left),
            slowest=where(going, maximum(now.slowest, rate), now.slowest),
            stalled=either(now.stalled, both(both(going, negate(accurate)), either(hopeless, lost))),
            diverged=where(going, either(lost, negate(shrinks)), now.diverged),
            n_iterations=now.n_iterations + going,
            n_evals=now.n_evals + 1 + solved.n_evals,
        )
        return now if converged is False else self._advance(now, converged)

    def _advance(self, now: _Iterates, converged: Flag) -> _Iterates:
        """Goes on to the next stage where the iteration has converged."""

        def put(rises: tuple[Tensor, ...], new: Tensor) -> tuple[Tensor, ...]:
            return tuple(where(both(converged, now.stage == j), new, old) for j, old in enumerate(rises))

        stage, rises, others, calls = now.stage + converged, put(now.rises, now.rise), now.others, 0
        if self._other is not None:
            other, calls = when(_some(converged), lambda: self._evaluated_other(now), lambda: self._no_other(now))
            others = put(others, other)
        return now._replace(
            stage=stage,
            rises=rises,
            others=others,
            base=where(converged, self._base(stage, rises, others), now.base),
            rise=where(converged, self._guess(stage, rises), now.rise),
            count=where(converged, now.count * 0, now.count),
            n_evals=now.n_evals + calls,
        )

    def _evaluated_other(self, now: _Iterates) -> tuple[Tensor, Any]:
        t, at = self._place(now)
        return over_state(self._dt, at) * self._other(t, at), count_from_zero(at) + 1  # type: ignore[misc]

    def _no_other(self, now: _Iterates) -> tuple[Tensor, Any]:
        return torch.zeros_like(now.rise), count_from_zero(now.rise)

    def _place(self, now: _Iterates) -> tuple[Tensor, Tensor]:
        """Time and state of the stages, as far as they are known."""
        t = state_time(self._t1 - self._rows.before_end(now.stage) * self._dt, self._x)
        return t, now.base + self._rows.gamma * now.rise

    def _base(self, stage: Any, rises: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        base = weighted_sum(self._rows.lower(stage), rises, self._x)
        return weighted_sum(self._rows.lower_of_other(stage), others, base) if others else base

    def _guess(self, stage: Any, rises: Sequence[Tensor]) -> Tensor:
        at_start, *continued = self._known
        guess = weighted_sum(self._rows.predictor(stage), [at_start, *rises, *continued], None)
        if self._adaptive:
            return guess
        # Slopes of a fast transient say nothing of a long step: from so far away another root than the solution may be
        # nearer, and with fixed steps no estimate of the error would tell.
        leaps = self._norm.at(self._x, guess) > self._norm.of_half_the_state
        return where(leaps, torch.zeros_like(guess), guess)


def _some(flag: Flag) -> Any:
    """Whether it is set anywhere: a truth value, or one of a compiled program."""
    return flag.any() if torch.compiler.is_compiling() else any_lane(flag)  # type: ignore[union-attr]
