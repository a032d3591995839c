"""The engine of linear multistep methods: a history of slopes, and a Runge-Kutta method until there is one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive_integer
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.loop import when
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import Flag, Scalar, both, magnitude, negate, over_state, where
from dyn_numerics.ode.stepper import FlatField, Step, Stepper, in_loop
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.times import time_dtype
from dyn_numerics.transforms import any_lane

__all__ = ["History", "Multistep", "moved"]

SHORTEST_PAST = 0.1  # of a step that extrapolates from a shorter one, rounding would be magnified by its cube


class History(NamedTuple):
    """What a multistep method carries.

    Attributes:
        slope: The field at the start of the step, `[*lead, N]`.
        slopes: The field at the start of the steps before, the last one first, `[*lead, N]` each.
        times: When that was, host numbers or `[*lead]` each; infinity where there was no step.
    """

    slope: Tensor
    slopes: tuple[Tensor, ...]
    times: tuple[Scalar, ...]


class Multistep(Stepper):
    """Steps from the slopes of several steps before, at the times that these had.

    A problem's history is of use if it goes on in the direction of the step, and no step in it is shorter than a tenth of this
    one. Until it is, a Runge-Kutta method of no lower order takes the steps, and completes them: at the start, after a jump,
    and after step sizes grew too fast. In a batch every problem has a history of its own; while some start and others
    do not, the field is evaluated for both.

    Args:
        order: Order of the method, 1 to 4.

    Attributes:
        starts: The methods that take the first steps, by order; None where the method needs no history.
        first_errors: What their error estimates are multiplied by, so that first steps are about as long as those that follow.
    """

    starts: ClassVar[Sequence[ExplicitRungeKutta | None]]
    first_errors: ClassVar[Sequence[float]]

    def __init__(self, order: int = 4) -> None:
        super().__init__()
        expected = f"1 to {len(self.starts)}; try solver='dopri8' for a higher one"
        self.order = positive_integer("order", order, expected)
        if self.order > len(self.starts):
            raise ValueError(f"order: got {order}, expected {expected}")
        self.one_step = self.order == 1

    def extra_repr(self) -> str:
        return f"order={self.order}"

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> History:
        slope = f(t, x) if slope is None else slope
        # Times of one problem are host numbers, but inside of torch.compile.
        on_host = t.dim() == 0 and not torch.compiler.is_compiling()
        never: Scalar = inf if on_host else torch.full_like(t, inf, dtype=time_dtype(t.device))
        past = self.order - 1
        return History(slope, (slope,) * past, (never,) * past)

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: History) -> Step:
        begins, nodes = _extrapolated(t0, t1, carry.times)
        some = begins.any() if isinstance(begins, Tensor) and torch.compiler.is_compiling() else any_lane(begins)
        found: tuple[Any, ...]
        n_evals: Any = 0
        # Who takes no part in one way to step stands still in it, where the field is known to be finite.
        if some is True and not any_lane(negate(begins)):
            found, _ = self._begin(f, t0, t1, x, carry.slope)
        else:
            going = self._advance(f, t0, where(begins, t0, t1), x, carry, nodes)
            until = where(begins, t1, t0)
            begun, calls = when(some, lambda: self._begin(in_loop(f), t0, until, x, carry.slope), lambda: (going, 0))
            found = where(begins, begun, going)
            n_evals = calls if isinstance(some, Tensor) else 0
        x1, last, error = (*found, None)[:3]
        past = len(carry.times)
        after = History(last, (carry.slope, *carry.slopes)[:past], (t0, *carry.times)[:past])
        return Step(x1, error, after, carry, carry.slope, n_evals=n_evals)

    def _begin(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, slope: Tensor) -> tuple[tuple[Tensor, ...], int]:
        """What `_advance` finds, without history; and the calls of `f`."""
        start: ExplicitRungeKutta = self.starts[self.order - 1]  # type: ignore[assignment]
        step = start.complete(f, t1, start.step(f, t0, t1, x, slope))
        found: tuple[Tensor, ...] = (step.x, step.carry)
        if step.error is not None and self.error_order is not None:
            found = (*found, step.error * self.first_errors[self.order - 1])
        return found, start.tableau.stages - start.reuses_last_stage

    @abstractmethod
    def _advance(
        self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, history: History, nodes: Sequence[Scalar]
    ) -> tuple[Tensor, ...]:
        """A step with history.

        Args:
            f: The field.
            t0: Start of the step.
            t1: Its end; the start, where a problem stands still.
            x: State at the start, `[*lead, N]`.
            history: The slopes.
            nodes: Times of the slopes before, from 0 at the start of the step to 1 at its end.

        Returns:
            The new state, the field there, and an estimate of the error if the method has one, `[*lead, N]` each.
        """

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        start, end, first, last = (
            value.to(self.dense_dtype(x0)) for value in (x0, step.x, step.stages, step.carry.slope)
        )
        return cubic_hermite(start, end, first, last, over_state(t1 - t0, start))


def moved(x: Tensor, dt: Scalar, weights: Sequence[Scalar], slopes: Sequence[Tensor]) -> Tensor:
    """`x + dt sum_j weights_j slopes_j`, `[*lead, N]`, in the dtype in which states are combined.

    Args:
        x: State, `[*lead, N]`.
        dt: Step size.
        weights: Weights of the first slopes.
        slopes: Slopes, `[*lead, N]` each.
    """
    total = x.to(wide_dtype(x.dtype))
    for weight, slope in zip(weights, slopes, strict=False):
        total = total + over_state(dt * weight, total) * slope.to(total.dtype)
    return total


def _extrapolated(t0: Scalar, t1: Scalar, times: Sequence[Scalar]) -> tuple[Flag, list[Scalar]]:
    """Where a step may not rest on slopes at times before it, and these times from 0 at its start to 1 at its end.

    Where it may not, or has no length, they are what they would be if all steps were equal.
    """
    dt = t1 - t0
    direction, length = where(dt < 0, -1.0, 1.0), magnitude(dt)
    usable: Flag = True
    for newer, older in pairwise((t0, *times)):
        past = direction * (newer - older)
        usable = both(usable, both(past >= SHORTEST_PAST * length, past < inf))
    moves = length > 0
    known = both(usable, moves)
    unit = where(known, dt, 1.0)
    return both(negate(usable), moves), [where(known, t - t0, -1.0 - i) / unit for i, t in enumerate(times)]
