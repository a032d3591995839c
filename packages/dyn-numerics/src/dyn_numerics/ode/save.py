"""What a solve keeps: observers of its accepted steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.eager_loop import AcceptedStep, Observer
from dyn_numerics.ode.interpolants.polynomial import evaluate
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.pytree_state import StateLayout

__all__ = ["SaveDense", "SaveSteps", "SaveTimes", "Saved", "Saver"]


class Saved(NamedTuple):
    """What was kept: times `[T]` in the dtype of times, flat states `[T, N]` there, and the dense solution or None."""

    t: Tensor
    x: Tensor
    dense: DenseSolution | None


class Saver(Observer, Protocol):
    """An observer that keeps something of the solution."""

    @abstractmethod
    def result(self, layout: StateLayout) -> Saved:
        """What was kept, once the solve has ended."""


class SaveTimes(Saver):
    """Keeps the state at given times.

    Args:
        times: The output times as host numbers, the start included, in the order of the solve.
        t: The same as a tensor `[T]` in the dtype of times; outputs are differentiable with respect to it.
        first: States at those that are the start, `[m, N]`; more than one where the span has no length.
        lands_on_times: Whether the solve lands on every one of them and moves with it, so that nothing is interpolated.
        differentiable: Whether somebody wants derivatives with respect to them.
    """

    def __init__(
        self, times: list[float], t: Tensor, first: Tensor, lands_on_times: bool, differentiable: bool
    ) -> None:
        self.interpolates = not lands_on_times
        self._times, self._t = times, t
        self._saved = len(first)
        self._pieces = [first]
        self._direction = 1 if times[-1] > times[0] else -1
        self._slides = self.interpolates and differentiable

    def on_accept(self, accepted: AcceptedStep) -> None:
        """Evaluates the outputs that lie in the step; one at its very end is the new state itself.

        With gradients to the times only the last output is: another one that happens to lie at the end of a step moves
        along the interpolant when its time does, and the step stays.
        """
        first = self._saved
        while self._saved < len(self._times) and self._direction * (self._times[self._saved] - accepted.t1) <= 0:
            self._saved += 1
        at_end = self._saved > first and self._times[self._saved - 1] == accepted.t1
        at_end = at_end and not (self._slides and self._saved < len(self._times))
        inside = slice(first, self._saved - at_end)
        if inside.stop > inside.start:
            theta = (self._t[inside] - accepted.start) / (accepted.end - accepted.start)
            self._pieces.append(evaluate(accepted.interpolant, theta).to(accepted.x0.dtype))  # [m, N]
        if at_end:
            self._pieces.append(accepted.step.x.unsqueeze(0))

    def result(self, layout: StateLayout) -> Saved:
        """The states at all times; NaN at those that the solve did not reach."""
        missing = self._pieces[0].new_full((len(self._times) - self._saved, layout.size), torch.nan)
        return Saved(self._t, torch.cat([*self._pieces, missing]), None)


class SaveSteps(Saver):
    """Keeps the ends of the accepted steps.

    Args:
        start: Start time as the stepper receives it.
        x0: State there, `[N]`.
        t: A tensor in the dtype and on the device of times.
    """

    interpolates = False

    def __init__(self, start: Scalar, x0: Tensor, t: Tensor) -> None:
        self._like = t
        self._times = [start]
        self._states = [x0]

    def on_accept(self, accepted: AcceptedStep) -> None:
        """Keeps the new time and state."""
        self._times.append(accepted.end)
        self._states.append(accepted.step.x)

    def result(self, layout: StateLayout) -> Saved:
        """The start and the end of every accepted step, and the states there."""
        like = self._like
        t = torch.stack([torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in self._times])
        return Saved(t, torch.stack(self._states), None)


class SaveDense(Saver):
    """Keeps the interpolant of every accepted step, and the states at given times as `SaveTimes` does."""

    interpolates = True

    def __init__(self, outputs: SaveTimes, steps: SaveSteps) -> None:
        self._outputs, self._steps = outputs, steps
        self._coefficients: list[Tensor] = []

    def on_accept(self, accepted: AcceptedStep) -> None:
        """Keeps the interpolant beside the outputs and the ends of the steps."""
        self._outputs.on_accept(accepted)
        self._steps.on_accept(accepted)
        self._coefficients.append(accepted.interpolant)

    def result(self, layout: StateLayout) -> Saved:
        """The states at the given times, and the solution as a function of time if a step was accepted."""
        dense = None
        if self._coefficients:
            dense = DenseSolution(self._steps.result(layout).t, torch.stack(self._coefficients), layout)
        return self._outputs.result(layout)._replace(dense=dense)
