"""The engine that steps every Rosenbrock table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.jacobians.assembled_jacobian import AssembledJacobian, trial_vector
from dyn_numerics.ode.jacobians.by_argument import field_jacobian
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian, Linearisation
from dyn_numerics.ode.jacobians.spectral_radius import spectral_radius
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper, Work
from dyn_numerics.ode.steppers.weighted_sum import weighted_sum
from dyn_numerics.ode.steppers.widened_field import widened
from dyn_numerics.ode.tableaus.rosenbrock_tableau import RosenbrockTableau
from dyn_numerics.ode.times import state_time
from dyn_numerics.status import Status

__all__ = ["Rosenbrock"]


class Stages(NamedTuple):
    """The stages of a step.

    Attributes:
        u: `dt sum_j gamma_ij k_j` of each, `[*lead, N]`.
        jacobian: The Jacobian at the start of the step, as `jac` knows it.
    """

    u: list[Tensor]
    jacobian: Any


class Rosenbrock(Stepper):
    """Steps a Rosenbrock table: for stiff problems, every stage is one linear system, and none is iterated.

    All stages share one factorisation of `I - gamma dt J`, with the Jacobian `J` of the field at the start of the step.
    The field may depend on time; its derivative by time comes along with the Jacobian. A singular matrix is a rejected
    attempt, of its sample alone.

    Args:
        tableau: The method.
        jac: The Jacobian: a function `jac(t, x, *args)`, or a `FieldJacobian`, which also says how its systems are solved;
            by default a full matrix by `torch.func`.

    Attributes:
        tableau: The table it was built from.
        jac: The Jacobian.
        order: Order of the table.
        error_order: Order of its error estimate, None without one.
        dense_degree: Degree of its dense output, which takes no further evaluation.

    Example:
        >>> import torch
        >>> from dyn_numerics import Rosenbrock, odeint
        >>> from dyn_numerics.ode.tableaus.rosenbrock import RODAS5P
        >>> def f(t, x):
        ...     return -1e6 * (x - torch.cos(t))
        >>> t, x = odeint(f, torch.ones(1, dtype=torch.float64), [0.0, 1.0], solver=Rosenbrock(RODAS5P))
        >>> round(x[-1].item(), 4)
        0.5403

    References:
        E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., section IV.7.
    """

    implicit = True
    may_fail = True

    def __init__(self, tableau: RosenbrockTableau, jac: FieldJacobian | Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.tableau = tableau
        self.jac = field_jacobian(jac)
        self.structured = self.jac.structured
        self.order = tableau.order
        self.error_order = tableau.error_order
        self.dense_degree = len(tableau.numbers.dense)

    def extra_repr(self) -> str:
        return f"{self.tableau.name}, order={self.order}"

    def on(self, context: SolveContext) -> Self:
        jac = self.jac.on(context)
        if jac is self.jac:
            return self
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._modules = {**self._modules, "jac": jac}
        return twin

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Linearisation | None) -> Step:
        numbers, dt = self.tableau.numbers, t1 - t0
        narrow, wide = x.dtype, wide_dtype(x.dtype)
        # Steps and slopes of any size meet in float32 at least: their product may fit into half precision where they do not.
        field, start = widened(f, narrow), x.to(wide)
        known = self.jac.linearise(field, state_time(t0, x), start, with_rate=True) if carry is None else carry
        gamma, h = numbers.gamma, over_state(dt, start)
        factors = self.jac.factorise(known.jacobian, gamma * dt)
        n_evals: int | Tensor = 0
        u: list[Tensor] = []
        for before_end, a, c, rate in zip(numbers.before_end, numbers.a, numbers.c, numbers.rates, strict=True):
            slope = known.slope
            if u:
                slope = field(state_time(t1 - before_end * dt, x), weighted_sum(a, u, start))
            if rate and known.rate is not None:
                slope = slope + known.rate * (rate * h)
            right = weighted_sum((gamma * entry for entry in c), u, slope * (gamma * h))
            solved = self.jac.solve(field, factors, right)
            u.append(solved.x)
            n_evals = n_evals + solved.n_evals
        return Step(
            x=weighted_sum(numbers.b, u, start).to(narrow),
            error=None if numbers.error is None else weighted_sum(numbers.error, u),
            carry=None,
            # Samples that are selected among share one Jacobian per attempt; a problem of its own need not make it again.
            retry=None if isinstance(dt, Tensor) else known,
            stages=Stages(u, known.jacobian),
            failed=factors.singular * Status.SINGULAR_MATRIX.code,
            work=Work(n_jacobians=int(carry is None), n_factorisations=1, n_iterations=0),
            n_evals=n_evals,
        )

    def stiffness(self, step: Step) -> Tensor | None:
        # Eight products with the Jacobian at the start of the step; one that is not at hand says nothing.
        if not isinstance(self.jac, AssembledJacobian):
            return None
        product = partial(self.jac.product, step.stages.jacobian)
        u = step.stages.u[0]
        return spectral_radius(product, trial_vector(u).expand_as(u))

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        start = x0.to(self.dense_dtype(x0))
        return torch.stack([start, *(weighted_sum(row, step.stages.u) for row in self.tableau.numbers.dense)], dim=-2)
