"""The automatic choice between a method for problems that are not stiff and one for those that are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from dyn_numerics.arguments import kind_of, positive_integer
from dyn_numerics.ode.scalar import Scalar, magnitude, where
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper, Work
from dyn_numerics.ode.steppers.explicit_methods import Dopri5
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.steppers.rosenbrock_methods import Rodas5P
from dyn_numerics.ode.times import state_time
from dyn_numerics.transforms import under_transform

__all__ = ["StiffnessSwitching"]

# |dt| times the largest eigenvalue. Methods of order 5 lose their stability at about 3.3; steps swing about that, and the
# van der Pol equation of any stiffness takes fewest steps where they are said to be held down from here on.
EDGE_OF_STABILITY = 2.5


class Choice(NamedTuple):
    """What is carried from step to step.

    Attributes:
        stiff: Whether the implicit method is at work, `[*lead]`.
        votes: How many steps have spoken for the other one, less those that have spoken against it, `[*lead]`.
        unknown: Whether the slope is not known, since the step before was implicit, `[*lead]`.
        slope: The field at the state, for the explicit method.
        implicit: What the implicit method carries.
    """

    stiff: Tensor
    votes: Tensor
    unknown: Tensor
    slope: Tensor
    implicit: Any


class _Ends(NamedTuple):
    """Where the step of each method ends."""

    explicit: Scalar
    implicit: Scalar


class Tried(NamedTuple):
    """The steps of the two methods.

    Attributes:
        stiff: Whether the implicit method is at work, `[*lead]`.
        ends: Where each ends.
        explicit: The explicit method's; None where no problem wants one.
        implicit: The implicit method's; None where no problem wants one.
    """

    stiff: Tensor
    ends: _Ends
    explicit: Step | None
    implicit: Step | None

    def own(self, of: Callable[[Step], Any]) -> Any:
        """Something of the step that is each problem's own."""
        if self.explicit is None or self.implicit is None:
            return of(self.explicit or self.implicit)  # type: ignore[arg-type]
        return where(self.stiff, of(self.implicit), of(self.explicit))


class StiffnessSwitching(Stepper):
    """Steps by an explicit method as long as a problem is not stiff, and by an implicit one while it is.

    It starts with the explicit method. That one compares slopes at the end of every step, which tells the size of the
    Jacobian; where several steps are as long as stability allows, the problem is stiff and the implicit method takes over.
    It hands back when its steps, which accuracy chooses, are short enough for the explicit method to be stable. Under
    `stepping="per_sample"` every sample chooses for itself.

    A joint solve reads one more number from the device in every step. Inside of `torch.compile` both methods are computed
    in every step, and `n_evals` counts both.

    Args:
        explicit: A method with an error estimate and an estimate of stiffness; `Dopri5()` by default.
        implicit: One with an error estimate of the same order and an estimate of stiffness; `Rodas5P()` by default.
        to_implicit: Votes that it takes to switch to the implicit method.
        to_explicit: Votes that it takes to switch back.

    Attributes:
        nonstiff: The explicit method.
        stiff: The implicit one.
        order: The lower of their orders.
        error_order: The order of their error estimates.

    Raises:
        TypeError: If a method is of another kind.
        ValueError: If the orders of the error estimates differ, or the votes are not positive integers.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> def van_der_pol(t, x, mu):
        ...     return torch.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])
        >>> x0 = torch.tensor([2.0, 0.0], dtype=torch.float64)
        >>> sol = odeint(van_der_pol, x0, [0.0, 500.0], solver="auto", rtol=1e-5, args=(1000.0,))
        >>> round(sol.x[-1, 0].item(), 2), bool(sol.stats.n_steps < 100)
        (1.6, True)

    References:
        - L. Petzold: Automatic selection of methods for solving stiff and nonstiff systems of ordinary differential equations,
          SIAM Journal on Scientific and Statistical Computing 4 (1983).
        - E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., section IV.2, "Automatic stiffness
          detection".
    """

    implicit = True
    may_fail = True

    def __init__(
        self,
        explicit: ExplicitRungeKutta | None = None,
        implicit: Stepper | None = None,
        to_implicit: int = 5,
        to_explicit: int = 3,
    ) -> None:
        super().__init__()
        self.nonstiff = Dopri5() if explicit is None else explicit
        self.stiff = Rodas5P() if implicit is None else implicit
        if not isinstance(self.nonstiff, ExplicitRungeKutta) or not (
            self.nonstiff.reuses_last_stage and self.nonstiff.tableau.numbers.ends_twice
        ):
            raise TypeError(
                f"explicit: got {kind_of(explicit)}, expected an explicit Runge-Kutta method that estimates stiffness, "
                f"with the coefficients of its table; try Dopri5() or Tsit5()"
            )
        if not isinstance(self.stiff, Stepper) or not self.stiff.implicit:
            raise TypeError(f"implicit: got {kind_of(implicit)}, expected an implicit method; try Rodas5P()")
        orders = self.nonstiff.error_order, self.stiff.error_order
        if orders[0] != orders[1] or orders[0] is None:
            raise ValueError(f"explicit, implicit: got error estimates of the orders {orders}, expected the same order")
        self.to_implicit = positive_integer("to_implicit", to_implicit, "a positive integer")
        self.to_explicit = positive_integer("to_explicit", to_explicit, "a positive integer")
        self.order = min(self.nonstiff.order, self.stiff.order)
        self.error_order = orders[0]
        self.structured = self.nonstiff.structured or self.stiff.structured
        self.dense_degree = max(self.nonstiff.dense_degree, self.stiff.dense_degree)

    def on(self, context: SolveContext) -> Self:
        stiff = self.stiff.on(context)
        if stiff is self.stiff:
            return self
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._modules = {**self._modules, "stiff": stiff}
        return twin

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Choice:
        slope = f(t, x) if slope is None else slope
        nobody = torch.zeros(x.shape[:-1], dtype=torch.bool, device=x.device)
        votes = torch.zeros_like(nobody, dtype=torch.int64)
        return Choice(nobody, votes, nobody, slope, self.stiff.init(f, t, x, slope))

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Choice) -> Step:
        stiff, slope = carry.stiff, carry.slope
        some_stiff, some_calm, some_unknown = _any_of(stiff, ~stiff, carry.unknown)
        if some_unknown:
            slope = where(carry.unknown, f(state_time(t0, x), x), slope)
        ends = _Ends(t1, t1)
        if some_stiff and some_calm:
            # A problem stands still in the method that is not its own, so that nothing there is out of bounds.
            ends = _Ends(where(stiff, t0 + 0 * t1, t1), where(stiff, t1, t0 + 0 * t1))
        explicit = self.nonstiff.step(f, t0, ends.explicit, x, slope) if some_calm else None
        implicit = self.stiff.step(f, t0, ends.implicit, x, carry.implicit) if some_stiff else None
        tried = Tried(stiff, ends, explicit, implicit)
        reach = self._stiffness(tried) * magnitude(t1 - t0)
        speaks = torch.where(stiff, reach < EDGE_OF_STABILITY, reach > EDGE_OF_STABILITY)
        votes = (carry.votes + torch.where(speaks, 1, -1)).clamp(min=0)
        enough = votes >= torch.where(stiff, self.to_explicit, self.to_implicit)
        return Step(
            x=tried.own(lambda step: step.x),
            error=tried.own(lambda step: step.error),
            carry=Choice(
                stiff=stiff ^ enough,
                votes=torch.where(enough, 0, votes),
                unknown=stiff,
                slope=slope if explicit is None else explicit.carry,
                implicit=carry.implicit if implicit is None else implicit.carry,
            ),
            retry=carry._replace(
                unknown=torch.zeros_like(stiff),
                slope=slope,
                implicit=carry.implicit if implicit is None else implicit.retry,
            ),
            stages=tried,
            failed=tried.own(lambda step: 0 if step.failed is None else step.failed),
            work=tried.own(lambda step: Work(0, 0, 0) if step.work is None else step.work),
            n_evals=0 if implicit is None else implicit.n_evals,
        )

    def stiffness(self, step: Step) -> Tensor | None:
        return self._stiffness(step.stages)

    def _stiffness(self, tried: Tried) -> Tensor:
        def estimate(own: Step) -> Tensor:
            found = (self.nonstiff if own is tried.explicit else self.stiff).stiffness(own)
            # A Jacobian that is known by its products alone does not say when to switch back.
            return torch.full(own.x.shape[:-1], inf, device=own.x.device) if found is None else found

        found: Tensor = tried.own(estimate)
        return found

    def dense_dtype(self, x: Tensor) -> torch.dtype:
        return torch.promote_types(self.nonstiff.dense_dtype(x), self.stiff.dense_dtype(x))

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        tried: Tried = step.stages
        if tried.explicit is not None:
            tried = tried._replace(explicit=self.nonstiff.complete(f, tried.ends.explicit, tried.explicit))
        if tried.implicit is not None:
            tried = tried._replace(implicit=self.stiff.complete(f, tried.ends.implicit, tried.implicit))
        return step._replace(stages=tried)

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        tried: Tried = step.stages
        dtype = self.dense_dtype(x0)

        def polynomial(own: Step) -> Tensor:
            method, end = (
                (self.nonstiff, tried.ends.explicit) if own is tried.explicit else (self.stiff, tried.ends.implicit)
            )
            found = method.interpolant(f, t0, end, x0, own).to(dtype)
            return nn.functional.pad(found, (0, 0, 0, self.dense_degree - method.dense_degree))

        found: Tensor = tried.own(polynomial)
        return found


def _any_of(*flags: Tensor) -> Sequence[bool]:
    """Whether any of each is set, by one host read; yes where values cannot be read."""
    if torch.compiler.is_compiling() or under_transform():
        return [True] * len(flags)
    found: list[bool] = torch.stack([flag.any() for flag in flags]).tolist()
    return found
