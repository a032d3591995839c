"""The engine that steps every diagonally implicit Runge-Kutta table."""

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
from dyn_numerics.ode.steppers.simplified_newton import NewtonMatrix, SimplifiedNewton
from dyn_numerics.ode.steppers.stage_rows import StageRows
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import is_differentiable, state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_differentiation

__all__ = ["DiagonallyImplicitRungeKutta"]


MOST_RATIO = 3.0


class Memory(NamedTuple):
    """What a step hands on: the field at its end, and the matrix of its Newton iteration."""

    slope: Tensor
    trend: tuple[Tensor, ...]
    length: Scalar
    matrix: NewtonMatrix


class DiagonallyImplicitRungeKutta(Stepper):
    """Steps a diagonally implicit Runge-Kutta table."""

    implicit = True

    def __init__(self, tableau: ButcherTableau, jac: FieldJacobian | Callable[..., Any] | None = None) -> None:
        super().__init__()
        numbers = tableau.numbers
        diagonal = numbers.diagonal
        if (
            not diagonal[-1]
            or any(entry != diagonal[-1] for entry in diagonal[1:])
            or diagonal[0] not in (0, diagonal[-1])
        ):
            raise ValueError(
                f"tableau: got {tableau.name!r} with {diagonal} on its diagonal, expected one "
                f"number, but for a first stage that may be explicit"
            )
        self.tableau = tableau
        self.jac = field_jacobian(jac)
        self.structured = self.jac.structured
        self.order = tableau.order
        self.error_order = tableau.error_order
        self._rows = StageRows(tableau)
        s = len(diagonal)
        self._a, self._b, *estimates = numbers.rows[:s], *numbers.rows[s:]
        self._error_weights = estimates[0] if estimates else None
        self._trend = numbers.trend
        self._norm: ErrorNorm | None = None
        self._adaptive = False

    def extra_repr(self) -> str:
        return f"{self.tableau.name}, order={self.order}"

    def on(self, context: SolveContext) -> Self:
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._norm, twin._adaptive = context.norm, context.adaptive
        layout = context.layout
        twin._rows = self._rows.on(torch.empty((), dtype=wide_dtype(layout.dtype), device=layout.device))
        twin._modules = {**self._modules, "jac": self.jac.on(context)}
        return twin

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Memory:
        slope = f(t, x) if slope is None else slope
        with torch.no_grad():
            wide = x.detach().to(wide_dtype(x.dtype))
            jacobian = self.jac.linearise(_widened(f, x), state_time(t.detach(), wide), wide).jacobian
            size = self._norm_at(wide).at(wide, torch.zeros_like(wide))
            zero = torch.zeros_like(size) if isinstance(size, Tensor) else 0.0
            matrix = NewtonMatrix(
                jacobian=jacobian,
                factors=self.jac.factorise(jacobian, zero),
                shift=zero,
                eta=zero + 1,
                outdated=zero != 0,
            )
            matrix = _detached(matrix)
            if torch.compiler.is_compiling():  # a loop keeps the layout of memory, and `when` returns this one
                matrix = tree_map_only(Tensor, Tensor.contiguous, matrix)
        return Memory(slope.to(wide.dtype), tuple(torch.zeros_like(wide) for _ in self._trend), zero, matrix)

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Memory) -> Step:
        narrow, dtype = x, wide_dtype(x.dtype)
        x, dt = x.to(dtype), t1 - t0
        field = _widened(f, narrow)
        known = under_differentiation() or any(
            is_differentiable(value) for value in (x, dt, carry.slope) if isinstance(value, Tensor)
        )
        with torch.no_grad():
            norm = self._norm_at(x)
            start, end = (_number(t, norm.on_host) for t in (t0, t1))
            watched = WatchedField(field, known) if not torch.compiler.is_compiling() else in_loop(field)
            rows = self._rows if self._norm is not None else self._rows.on(x)
            newton = SimplifiedNewton(watched, self.jac, norm, rows, self._adaptive, start, end, x.detach())
            ratio = where(carry.length != 0, (end - start) / where(carry.length != 0, carry.length, 1.0), 0.0)
            ratio = where(ratio <= MOST_RATIO, ratio, 0.0)
            found = newton.solve(carry.slope.detach(), carry.trend, ratio, carry.matrix)
            found = found._replace(rises=_detached(found.rises), matrix=_detached(found.matrix))
            known_rises = [over_state(end - start, x) * carry.slope.detach(), *found.rises]
            trend = tuple(_sum(row, [r - found.rises[-1] for r in known_rises], None) for row in self._trend)
        rises: Sequence[Tensor] = found.rises
        if isinstance(watched, WatchedField) and watched.differentiable and found.failed is not True:
            rises = self._attached(field, t1, dt, x, carry.slope, rises)
        x1 = _sum(self._b, rises, x)
        error = None if self._error_weights is None else _sum(self._error_weights, rises, None)
        length = over_state(dt, x)
        slope = where(dt != 0, rises[-1] / where(dt != 0, length, 1.0), carry.slope)
        return Step(
            x=x1.to(narrow.dtype),
            error=error,
            carry=Memory(slope, trend, where(carry.length == carry.length, end - start, carry.length), found.matrix),
            retry=carry,
            stages=(carry.slope, slope),
            failed=found.failed,
            work=found.work,
            n_evals=found.n_evals if torch.compiler.is_compiling() else 0,
        )

    def _attached(
        self, f: FlatField, t1: Scalar, dt: Scalar, x: Tensor, slope: Tensor, rises: Sequence[Tensor]
    ) -> list[Tensor]:
        """The rises with their gradients: by a Newton correction of each, whose value is left out."""
        length = over_state(dt, x)
        shift = self._rows.gamma * (dt.detach() if isinstance(dt, Tensor) else dt)
        attached = [length * slope] * self._rows.first
        for i in range(self._rows.first, len(rises)):
            rise = rises[i]
            at = _sum(self._a[i][:i], attached, x) + self._rows.gamma * rise
            t = state_time(t1 - self._rows.before_end(i) * dt, x)
            with torch.no_grad():
                jacobian = _detached(self.jac.linearise(f, t.detach(), at.detach()).jacobian)
                factors = _detached(self.jac.factorise(jacobian, shift))
            correction = self.jac.solve(f, factors, length * f(t, at) - rise).x
            attached.append(rise + (correction - correction.detach()))
        return attached

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        first, last = step.stages
        start, end = x0.to(first.dtype), step.x.to(first.dtype)
        return cubic_hermite(start, end, first, last, over_state(t1 - t0, start))

    def _norm_at(self, x: Tensor) -> ErrorNorm:
        """The norm of the solve; by itself a method goes on to rounding."""
        if self._norm is not None:
            return self._norm
        rtol = 10 * torch.finfo(x.dtype).eps
        atol = rtol * x.detach().abs().amax(-1, keepdim=True).expand_as(x) + torch.finfo(x.dtype).tiny
        return ErrorNorm(rtol, atol, StateLayout(x.detach(), "x", x.dim() > 1), None, on_host=False)


def _widened(f: FlatField, x: Tensor) -> FlatField:
    """The field for states in the dtype that steps are computed in."""
    dtype = wide_dtype(x.dtype)
    if dtype is x.dtype:
        return f
    return lambda t, at: f(t.to(x.dtype), at.to(x.dtype)).to(dtype)


def _sum(weights: Sequence[float], rises: Sequence[Tensor], total: Tensor | None) -> Tensor:
    for weight, rise in zip(weights, rises, strict=False):
        if weight != 0:
            total = rise * weight if total is None else torch.add(total, rise, alpha=weight)
    return torch.zeros_like(rises[0]) if total is None else total


def _number(t: Scalar, on_host: bool) -> Scalar:
    """A time without gradient, a host number where control has those."""
    if not isinstance(t, Tensor):
        return t
    return t.item() if on_host else t.detach()


def _detached(made: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, made)
