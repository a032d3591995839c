"""The engine that steps every diagonally implicit Runge-Kutta table, alone or beside an explicit one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.flat_field import WatchedField
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.jacobians.by_argument import field_jacobian
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian
from dyn_numerics.ode.scalar import Scalar, over_state, where
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper, in_loop
from dyn_numerics.ode.steppers.simplified_newton import NewtonMatrix, SimplifiedNewton, SolvedStages, Trend
from dyn_numerics.ode.steppers.stage_rows import StageRows
from dyn_numerics.ode.steppers.weighted_sum import weighted_sum
from dyn_numerics.ode.steppers.widened_field import widened
from dyn_numerics.ode.tableaus.additive_tableau import AdditiveTableau
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import is_differentiable, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import n_differentiations, under_differentiation, without_transforms

__all__ = ["DiagonallyImplicitRungeKutta"]


class Memory(NamedTuple):
    """What a step hands on.

    Attributes:
        slopes: The field at its end, `[*lead, N]`, and the other part of it if there is one.
        trend: How slopes went on.
        matrix: The matrix of the Newton iteration.
    """

    slopes: tuple[Tensor, ...]
    trend: Trend
    matrix: NewtonMatrix


class DiagonallyImplicitRungeKutta(Stepper):
    """Steps a diagonally implicit Runge-Kutta table, for stiff problems.

    Stages are solved by simplified Newton iterations, every sample's by its own: until what is left is a tenth of the
    tolerance, with fixed steps too. Jacobians and factorisations are kept from step to step while the iteration
    converges fast, and made where it stands when it does not. A stage that is not solved is a rejected attempt, of its
    sample alone. Outside of a solve there is no tolerance, and stages are solved to rounding.

    Gradients are those of stages that are solved exactly: each stage is re-attached by a Newton correction with a Jacobian
    of its own, or by one for each order of derivatives that nested transforms of `torch.func` ask for. Plain autograd has
    first derivatives, and refuses second ones.

    The table has one number on its diagonal, but for a first stage that may be explicit, and its last stage is the new
    state. With an `AdditiveTableau` the method steps a `SplitField`, whose part `b` is not solved for.

    Args:
        tableau: The method.
        jac: The Jacobian: a function `jac(t, x, *args)`, or a `FieldJacobian`, which also says how its systems are solved;
            by default a full matrix by `torch.func`.

    Raises:
        ValueError: If the table is not of that kind.

    Attributes:
        tableau: The table it was built from.
        jac: The Jacobian.
        order: Order of the table.
        error_order: Order of its error estimate, None without one.

    Example:
        >>> import torch
        >>> from dyn_numerics import DiagonallyImplicitRungeKutta, odeint
        >>> from dyn_numerics.ode.tableaus.diagonally_implicit import KVAERNO5
        >>> def f(t, x):
        ...     return -1e6 * (x - torch.cos(t))
        >>> solver = DiagonallyImplicitRungeKutta(KVAERNO5)
        >>> t, x = odeint(f, torch.ones(1, dtype=torch.float64), [0.0, 1.0], solver=solver)
        >>> round(x[-1].item(), 4)
        0.5403

    References:
        E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., sections IV.6 and IV.8.
    """

    implicit = True
    may_fail = True
    loops = True

    def __init__(
        self, tableau: ButcherTableau | AdditiveTableau, jac: FieldJacobian | Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.tableau = tableau
        self.split = "additive" if isinstance(tableau, AdditiveTableau) else None
        table, other = (tableau.implicit, tableau.explicit) if isinstance(tableau, AdditiveTableau) else (tableau, None)
        numbers = table.numbers
        first, *rest = numbers.diagonal
        gamma = numbers.diagonal[-1]
        if not gamma or any(entry != gamma for entry in rest) or first not in (0, gamma):
            raise ValueError(
                f"tableau: got {tableau.name!r} with {numbers.diagonal} on its diagonal, expected one number, but for a first "
                f"stage that may be explicit"
            )
        if not numbers.stiffly_accurate:
            raise ValueError(
                f"tableau: got {tableau.name!r}, whose last stage is not the new state, expected one that is stiffly accurate"
            )
        self.jac = field_jacobian(jac)
        self.structured = self.jac.structured
        self.order = tableau.order
        self.error_order = tableau.error_order
        self._rows = StageRows(table, other)
        count = len(numbers.diagonal)
        self._a, (self._b, *estimates) = numbers.rows[:count], numbers.rows[count:]
        self._a_of_other = [] if other is None else other.numbers.rows[:count]
        self._error_weights = estimates[0] if estimates else None
        self._trend = numbers.trend
        self._norm: ErrorNorm | None = None
        self._adaptive = False

    def extra_repr(self) -> str:
        return f"{self.tableau.name}, order={self.order}"

    def on(self, context: SolveContext) -> Self:
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        layout = context.layout
        twin._norm, twin._adaptive = context.norm, context.adaptive
        twin._rows = self._rows.on(wide_dtype(layout.dtype), layout.device)
        twin._modules = {**self._modules, "jac": self.jac.on(context)}
        return twin

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Memory:
        wide = wide_dtype(x.dtype)
        if self.split is None:
            slopes: tuple[Tensor, ...] = (f(t, x) if slope is None else slope,)
        else:
            slopes = f(t, x, "a"), f(t, x, "b")
        field, _ = self._parts(f, x)
        with torch.no_grad():
            at = x.detach().to(wide)
            jacobian = self.jac.linearise(field, state_time(t.detach(), at), at).jacobian
            size = self._norm_at(at).at(at, torch.zeros_like(at))
            zero = torch.zeros_like(size) if isinstance(size, Tensor) else 0.0
            factors = self.jac.factorise(jacobian, zero)
            matrix = _detached(
                NewtonMatrix(jacobian, factors, shift=zero, defined=zero == 0, left=zero + 1, outdated=zero != 0)
            )
            if torch.compiler.is_compiling():  # a loop keeps the layout of memory, and `when` returns this one
                matrix = tree_map_only(Tensor, Tensor.contiguous, matrix)
            trend = Trend(tuple(torch.zeros_like(at) for _ in self._trend), zero)
        return Memory(tuple(slope.to(wide) for slope in slopes), trend, matrix)

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Memory) -> Step:
        narrow, x, dt = x, x.to(wide_dtype(x.dtype)), t1 - t0
        slopes = carry.slopes
        known = under_differentiation() or any(
            is_differentiable(value) for value in (x, dt, *slopes) if isinstance(value, Tensor)
        )
        watched = f if torch.compiler.is_compiling() else WatchedField(f, known)  # type: ignore[arg-type]
        with torch.no_grad():
            found = self._solved(watched, t0, t1, x.detach(), narrow, carry)
            trend = self._continuation(found, slopes[0], t1 - t0, carry.trend)
        rises, others = found.rises, found.others
        if isinstance(watched, WatchedField) and watched.differentiable and found.failed is not True:
            rises, others = self._attached(f, t1, dt, x, narrow, slopes, found)
        x1 = weighted_sum(self._b, others, weighted_sum(self._b, rises, x))
        error = None
        if self._error_weights is not None:
            error = weighted_sum(self._error_weights, others, weighted_sum(self._error_weights, rises, None))
        end = x1.to(narrow.dtype)
        if self.split is None:
            moves = dt != 0
            last: tuple[Tensor, ...] = (where(moves, rises[-1] / where(moves, over_state(dt, x), 1.0), slopes[0]),)
        else:
            t = state_time(t1, narrow)
            last = f(t, end, "a").to(x.dtype), f(t, end, "b").to(x.dtype)
        return Step(
            x=end,
            error=error,
            carry=Memory(last, trend, found.matrix),
            retry=carry,
            stages=(slopes, last),
            failed=found.failed,
            work=found.work,
            n_evals=found.n_evals if torch.compiler.is_compiling() else 0,
        )

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        first, last = (sum(slopes[1:], slopes[0]) for slopes in step.stages)
        start, end = x0.to(first.dtype), step.x.to(first.dtype)
        return cubic_hermite(start, end, first, last, over_state(t1 - t0, start))

    def _solved(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, narrow: Tensor, carry: Memory) -> SolvedStages:
        """The stages, without gradient."""
        norm = self._norm_at(x)
        start, end = (_number(t, norm.on_host) for t in (t0, t1))
        rows = self._rows if self._norm is not None else self._rows.on(x.dtype, x.device)
        field, other = self._parts(in_loop(f), narrow)
        newton = SimplifiedNewton(field, other, self.jac, norm, rows, self._adaptive, start, end, x)
        found = newton.solve([slope.detach() for slope in carry.slopes], carry.trend, carry.matrix)
        return found._replace(
            rises=_detached(found.rises), others=_detached(found.others), matrix=_detached(found.matrix)
        )

    def _continuation(self, found: SolvedStages, slope: Tensor, dt: Scalar, before: Trend) -> Trend:
        """How slopes went on in a step that started with this one."""
        length = dt.detach() if isinstance(dt, Tensor) else dt
        known = [over_state(length, slope) * slope.detach(), *found.rises]
        rises = tuple(weighted_sum(row, [rise - known[-1] for rise in known], None) for row in self._trend)
        if not isinstance(before.length, Tensor):
            return Trend(rises, _number(length, on_host=True))
        return Trend(rises, torch.zeros_like(before.length) + length)

    def _attached(
        self,
        f: FlatField,
        t1: Scalar,
        dt: Scalar,
        x: Tensor,
        narrow: Tensor,
        slopes: Sequence[Tensor],
        found: SolvedStages,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The rises of the stages with their gradients: by a Newton correction of each, whose value is left out."""
        field, other = self._parts(f, narrow)
        length, gamma, transforms = over_state(dt, x), self._rows.gamma, n_differentiations()
        shift = gamma * (dt.detach() if isinstance(dt, Tensor) else dt)
        exact = self.jac.of_the_field()
        rises, *others = ([length * slope] for slope in slopes)
        rises = rises[: self._rows.first]
        for i in range(self._rows.first, len(found.rises)):
            rise, base = found.rises[i], weighted_sum(self._a[i][:i], rises, x)
            if other is not None:
                base = weighted_sum(self._a_of_other[i], others[0], base)
            t, at = state_time(t1 - self._rows.before_end(i) * dt, x), base + gamma * rise
            with torch.no_grad():
                jacobian = _detached(exact.linearise(field, t.detach(), at.detach()).jacobian)
                factors = _detached(exact.factorise(jacobian, shift))
            attached, order = rise, 0
            while order < max(1, transforms) or (order == transforms and without_transforms(attached).requires_grad):
                residual = length * field(t, base + gamma * attached) - attached
                attached = _with_gradient(attached, exact.solve(field, factors, residual).x)
                order += 1
            rises.append(_once(attached))
            if other is not None:
                others[0].append(_with_gradient(found.others[i], length * other(t, base + gamma * rises[i])))
        return tuple(rises), tuple(others[0]) if others else ()

    def _parts(self, f: FlatField, x: Tensor) -> tuple[FlatField, FlatField | None]:
        """What is solved for and what is not, on states in the dtype that steps are computed in."""
        if self.split is None:
            return widened(f, x.dtype), None
        return widened(lambda t, at: f(t, at, "a"), x.dtype), widened(lambda t, at: f(t, at, "b"), x.dtype)

    def _norm_at(self, x: Tensor) -> ErrorNorm:
        """The norm of the solve; by itself a method goes on to rounding."""
        if self._norm is not None:
            return self._norm
        rtol = 10 * torch.finfo(x.dtype).eps
        atol = rtol * x.detach().abs().amax(-1, keepdim=True).expand_as(x) + torch.finfo(x.dtype).tiny
        return ErrorNorm(rtol, atol, StateLayout(x.detach(), "x", x.dim() > 1), None, on_host=False)


def _once(x: Tensor) -> Tensor:
    """The same, which plain autograd may differentiate once: it does not say beforehand how often it will."""
    if not torch.compiler.is_compiling() and (made_of := without_transforms(x)).requires_grad:
        made_of.register_hook(_refuse_second_derivatives)  # type: ignore[no-untyped-call]
    return x


def _refuse_second_derivatives(gradient: Tensor) -> None:
    if torch.is_grad_enabled():
        raise ValueError(
            "solver: got a diagonally implicit method to differentiate twice by plain autograd (create_graph=True), "
            "expected first derivatives; try torch.func, or 'rodas5p'"
        )


def _with_gradient(value: Tensor, like: Tensor) -> Tensor:
    return value + (like - like.detach())


def _number(t: Scalar, on_host: bool) -> Scalar:
    """A time without gradient, a host number where control has those."""
    if not isinstance(t, Tensor):
        return t
    return t.item() if on_host else t.detach()


def _detached(made: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, made)
