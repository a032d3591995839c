"""Reversible methods of any order, made of Runge-Kutta methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dyn_numerics.arguments import kind_of, positive
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.status import Status

__all__ = ["ReversibleRungeKutta"]

MOST_APART = 1000  # in tolerances, which the error of the solution is then about as well


class ReversibleRungeKutta(Stepper):
    """Makes an explicit Runge-Kutta method reversible: its order, twice its evaluations, with an exact inverse.

    Beside the state `x` it carries another, `z`, which starts as `x`. With `Psi(t, x, dt)` for what a step of the base method
    adds to `x`,

        x1 = lambda x0 + (1 - lambda) z0 + Psi(t0, z0, dt),
        z1 = z0 - Psi(t1, x1, -dt),

    which is solved for `z0` first and then for `x0`. The error is that of the base method's step from `z0`, and so is the
    shape of the dense output.

    The coupling `lambda` below 1 pulls the two states together, while the inverse magnifies rounding by `1 / lambda` a step. Where
    solutions decay at a rate `a`, a step is stable for `a dt` up to about `1 - lambda`; beyond, the two part about as fast as
    solutions approach each other.

    In an adaptive solve a step after which the two are more than 1000 tolerances apart has failed: the solution is lost, while
    the error of single steps may be small all the same. Shorter ones bring them together again if the coupling is below 1.

    Args:
        base: An explicit Runge-Kutta method, or the name of one. A trainable one is trained.
        coupling: `lambda`, in (0, 1]. The nearer to 1, the more exact the inverse, and the shorter the stable steps.

    Attributes:
        base: The base method.
        order: Its order.
        error_order: Order of its error estimate, None without one.

    Raises:
        TypeError: If the base is no explicit Runge-Kutta method, or the coupling no number.
        ValueError: If there is no method of that name, or the coupling is not in (0, 1].

    Example:
        >>> import torch
        >>> from dyn_numerics import ReversibleRungeKutta, odeint
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver=ReversibleRungeKutta("bosh3"), rtol=1e-5)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        S. McCallum, J. Foster: Efficient, Accurate and Stable Gradients for Neural ODEs (2024), arXiv:2410.11648, section 3.
    """

    one_step = False
    may_fail = True

    def __init__(self, base: str | ExplicitRungeKutta, coupling: float = 0.999) -> None:
        super().__init__()
        method = stepper(base, "base") if isinstance(base, str) else base
        if not isinstance(method, ExplicitRungeKutta):
            got = repr(base) if isinstance(base, str) else kind_of(base)
            raise TypeError(f"base: got {got}, expected an explicit Runge-Kutta method or its name; try 'tsit5'")
        expected = "a number in (0, 1]; try 0.999"
        self.base = method
        self.coupling = positive("coupling", coupling, expected)
        if self.coupling > 1:
            raise ValueError(f"coupling: got {coupling}, expected {expected}")
        self.order = method.order
        self.error_order = method.error_order
        self.dense_degree = method.dense_degree
        self.dense_evals = method.dense_evals

        self._norm: ErrorNorm | None = None  # without, nobody asks how far the states are apart

    def extra_repr(self) -> str:
        return f"coupling={self.coupling:g}"

    def on(self, context: SolveContext) -> Self:
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._norm = context.norm if context.adaptive else None
        return twin

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Tensor:
        return x

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> Step:
        there = self.base.step(f, t0, t1, carry, None)
        rise = self._rise(there)
        wide = rise.dtype
        x1 = (carry.to(wide) + self.coupling * (x.to(wide) - carry.to(wide)) + rise).to(x.dtype)
        back = self.base.step(f, t1, t0, x1, None)
        beside = (carry.to(wide) - self._rise(back)).to(x.dtype)
        failed: Any = 0
        if self._norm is not None:
            apart = self._norm.of_step((x1 - beside).detach(), x.detach(), x1.detach())
            failed = (apart > MOST_APART) * Status.STATES_PARTED.code
        return Step(x1, there.error, beside, carry, Halves(there, back, carry), failed)

    def inverse_step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        back = self._rise(self.base.step(f, t1, t0, x, None))
        beside = (carry.to(back.dtype) + back).to(x.dtype)
        rise = self._rise(self.base.step(f, t0, t1, beside, None))
        z = beside.to(rise.dtype)
        return (z + (x.to(rise.dtype) - z - rise) / self.coupling).to(x.dtype), beside

    def _rise(self, step: Step) -> Tensor:
        """What a step of the base method adds to its state, `[*lead, N]`."""
        rise: Tensor = step.stages.weighted(self.base.tableau.stages)
        return rise

    def measure_error(self, step: Step, norm: Callable[[Tensor], Tensor]) -> Tensor:
        halves: Halves = step.stages
        return self.base.measure_error(halves.there, norm)

    def stiffness(self, step: Step) -> Tensor | None:
        halves: Halves = step.stages
        return self.base.stiffness(halves.there)

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        # That of the base method's step from z0, and a line that leads from x0 - z0 to what is left of it at the end.
        there, back, z0 = step.stages
        there = there._replace(carry=back.stages[0])
        coefficients = self.base.interpolant(f, t0, t1, z0, there)
        apart = x0.to(coefficients.dtype) - z0.to(coefficients.dtype)
        line = torch.stack([apart, (self.coupling - 1) * apart], dim=-2)
        return coefficients + torch.nn.functional.pad(line, (0, 0, 0, self.dense_degree - 1))


class Halves(NamedTuple):
    """The two steps of the base method that a step is made of.

    Attributes:
        there: From `z0`.
        back: From `x1`; its first slope is the field at the new state.
        beside: `z0`, `[*lead, N]`.
    """

    there: Step
    back: Step
    beside: Tensor
