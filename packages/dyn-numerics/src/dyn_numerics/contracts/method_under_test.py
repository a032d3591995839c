"""What the contracts of a stepper and of its dense output have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor

from dyn_numerics.contracts.forced_growth import ForcedGrowth
from dyn_numerics.contracts.forced_oscillator import ForcedOscillator
from dyn_numerics.contracts.reference_problem import ReferenceProblem
from dyn_numerics.ode.odeint import odeint
from dyn_numerics.ode.scalar import Scalar, maximum, minimum
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.split_field import Part, SplitField
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.times import state_time

__all__ = ["MethodUnderTest", "Taken", "evenly", "is_within"]


class Taken(NamedTuple):
    """A step that was taken.

    Attributes:
        t0: Its start.
        t1: Its end.
        x0: State at its start, `[*lead, N]`.
        step: What the method returned, completed if it was to be.
    """

    t0: Scalar
    t1: Scalar
    x0: Tensor
    step: Step


class MethodUnderTest:
    """A stepper, and the problem that it is measured on.

    Attributes:
        problem: Problem with a known solution; set another for a method that solves problems of one kind only, such as
            `ForcedRadialOscillator` for one that steps a partitioned field.
        problem_of_high_order: Problem that orders above 4 are measured on: with few digits to go, errors in a nonlinear one
            do not fall at one rate yet.
        length: Length of the span that orders are measured on, in time units; chosen by the order when None.
        most_steps: Greatest number of steps on that span; fewer save time.
        reversed_time: Whether the method steps backward in time too.
        per_sample: Whether it steps a batch in which every sample has times of its own.
        dtypes: Dtypes of the states that it takes.
        device: Where it is tested.
    """

    problem: ReferenceProblem = ForcedOscillator()
    problem_of_high_order: ReferenceProblem = ForcedGrowth()
    length: float | None = None
    most_steps: int = 200
    reversed_time: bool = True
    per_sample: bool = True
    dtypes: ClassVar[Sequence[torch.dtype]] = (torch.float64, torch.float32, torch.complex128)
    device: str = "cpu"

    def make(self) -> Stepper:
        """Makes the stepper under test, in the same state every time."""
        raise NotImplementedError(f"{type(self).__name__}.make: expected a method that returns the stepper to test")

    def made(self) -> Stepper:
        """The stepper under test, on the device."""
        return self.make().to(self.device)

    def starts(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Start states of the problem, `[batch, N]`; complex ones are off the real axis."""
        x = torch.tensor(self.problem.starts, dtype=torch.float64, device=self.device)
        return (x * (1 + 0.1j)).to(dtype) if dtype.is_complex else x.to(dtype)

    def numbers(self, values: Sequence[float]) -> Tensor:
        """Times of several problems, `[batch]`, as a solve hands them to a step."""
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def length_of(self, order: int) -> float:
        """Length of the span that orders are measured on."""
        return self.length or (0.02 if order == 1 else 1.0 if order <= 5 else 6.0)

    def measured_on(self, stepper: Stepper, order: int, reverse: bool) -> tuple[ReferenceProblem, Tensor, float, float]:
        """The problem, its start and the span that an order of a method is measured on."""
        if reverse and not self.reversed_time:
            raise SkipTest("reversed_time = False")
        problem = self.problem if stepper.order <= 4 else self.problem_of_high_order
        x0 = torch.tensor(problem.starts[0], dtype=torch.float64, device=self.device)
        length = self.length_of(order)
        return (problem, x0, length, 0.0) if reverse else (problem, x0, 0.0, length)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Starts, ends `[batch]` and states `[batch, N]` of steps of several problems, no two of the same length."""
        if not self.per_sample:
            raise SkipTest("per_sample = False")
        x = self.starts()
        t0 = self.numbers([0.1 + 0.3 * i for i in range(len(x))])
        dt = self.numbers([0.05 * (i + 1) for i in range(len(x))])
        if self.reversed_time:
            dt[-1] *= -1
        return t0, t0 + dt, x

    def cases(self, dtype: torch.dtype = torch.float64) -> list[tuple[Scalar, Scalar, Tensor]]:
        """Starts, ends and states of single steps: of one problem, forward and reversed, and of a batch."""
        x = self.starts(dtype)
        found: list[tuple[Scalar, Scalar, Tensor]] = [(0.3, 0.9, x[0])]  # 0.3 + (0.9 - 0.3) rounds beyond 0.9
        if self.reversed_time:
            found.append((0.9, 0.3, x[0]))
        if self.per_sample:
            t0, t1, _ = self.batch()
            found.append((t0, t1, x))
        return found

    def walk(
        self, stepper: Stepper, f: FlatField, times: Iterable[Scalar], x: Tensor, complete: bool = True
    ) -> Iterator[Taken]:
        """Steps from time to time as a solve does; one that completes its steps knows the field at the start."""
        carry: Any = None
        for i, (t0, t1) in enumerate(pairwise(times)):
            if i == 0:
                t = state_time(t0, x)
                carry = stepper.init(f, t, x, f(t, x) if complete else None)
            step = stepper.step(f, t0, t1, x, carry)
            if complete:
                step = stepper.complete(f, t1, step)
            yield Taken(t0, t1, x, step)
            x, carry = step.x, step.carry

    def solve(self, stepper: Stepper, f: FlatField, x0: Tensor, t_span: Any, **options: Any) -> Solution:
        """A solve of a problem as a user would pose it, with a `SplitField` and halves of the state for a split method.

        Args:
            stepper: The method.
            f: The field on flat states.
            x0: Start state, `[*lead, N]`.
            t_span: Output times.
            **options: Other arguments of `odeint`.

        Returns:
            The solution, its states flat, `[T, *lead, N]`.
        """

        def part(t: Tensor, x: Tensor, *name: Part) -> Tensor:
            return f(t[..., 0] if t.dim() else t, x, *name)

        if stepper.split is None:
            return odeint(part, x0, t_span, solver=stepper, **options)
        if stepper.split == "additive":
            field = SplitField(lambda t, x: part(t, x, "a"), lambda t, x: part(t, x, "b"))
            return odeint(field, x0, t_span, solver=stepper, **options)
        n = x0.shape[-1] // 2
        field = SplitField(
            lambda t, p: part(t, torch.cat([torch.zeros_like(p), p], dim=-1), "a")[..., :n],
            lambda t, q: part(t, torch.cat([q, torch.zeros_like(q)], dim=-1), "b")[..., n:],
        )
        solution = odeint(field, torch.split(x0, n, dim=-1), t_span, solver=stepper, **options)
        return replace(solution, x=torch.cat(solution.x, dim=-1))

    def single_step(self, stepper: Stepper, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor) -> Taken:
        """One step, completed."""
        return next(self.walk(stepper, f, (t0, t1), x))


def evenly(start: float, end: float, steps: int) -> list[float]:
    """The ends of steps of one size."""
    return [start + (end - start) * i / steps for i in range(steps)] + [end]


def is_within(t: Tensor, t0: Scalar, t1: Scalar) -> bool:
    """Whether a time of evaluation lies within the step."""
    return bool(((minimum(t0, t1) <= t) & (t <= maximum(t0, t1))).all())
