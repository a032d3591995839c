"""What a solver knows of its own steps, for use as regularisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from dyn_numerics.norms import norm_at_any_scale
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.own_rows import OwnRows
from dyn_numerics.ode.rows import stack
from dyn_numerics.ode.saver import Saved, Saver
from dyn_numerics.ode.scalar import Scalar

__all__ = ["Internals", "SaveInternals"]


@dataclass(frozen=True, eq=False)
class Internals:
    """A solver's estimates at its accepted steps, `[n]`, or `[n, batch]` under `stepping="per_sample"`.

    A sample with fewer steps than others ends with steps of no length, whose estimates are zero. All but `dt` are
    differentiable as the states are; `dt` is as far as it depends on the output times, on those of events or on a controller that learns.

    Attributes:
        dt: Signed step sizes, in time units.
        error: Root mean square over the state of the estimate of the local error, in state units; None without a step
            or for a method without an estimate.
        stiffness: Estimate of the largest magnitude of an eigenvalue of the field's Jacobian, per time unit; None without
            a step or for a method without an estimate (`dopri5`, `tsit5`, `vern7` and `dopri8` have one).

    Example:
        >>> import torch
        >>> from dyn_numerics import Save, odeint
        >>> sol = odeint(lambda t, x: -20 * x, torch.ones(1), [0.0, 1.0], save=Save(internals=True))
        >>> sol.internals.dt.shape == sol.internals.stiffness.shape, round(sol.internals.stiffness[0].item())
        (True, 20)

    References:
        A. Pal, Y. Ma, V. Shah, C. Rackauckas: Opening the Blackbox: Accelerating Neural Differential Equations by
        Regularizing Internal Solver Heuristics, ICML 2021, equations (8) to (11).
    """

    dt: Tensor
    error: Tensor | None
    stiffness: Tensor | None


class SaveInternals(Saver):
    """Keeps the estimates of accepted steps beside what another saver keeps.

    Args:
        saver: The other one.
        t: Output times `[T, *lead]` in the dtype of times.
    """

    def __init__(self, saver: Saver, t: Tensor) -> None:
        self._saver, self._like = saver, t
        self._moved: list[Tensor] = []
        self._dt: list[Scalar] = []
        self._errors: list[Tensor] = []
        self._stiffness: list[Tensor] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps those of one step."""
        self._saver.observe(attempted)
        moved, step = attempted.moved, attempted.step
        if moved is False:
            return
        if isinstance(moved, Tensor):
            self._moved.append(moved)
        self._dt.append(attempted.end - attempted.start)
        error = None if step.error is None else norm_at_any_scale(step.error) / sqrt(max(step.error.shape[-1], 1))
        stiffness = attempted.problem.stepper.stiffness(step)
        for kept, estimate in ((self._errors, error), (self._stiffness, stiffness)):
            if estimate is not None:
                kept.append(estimate)

    def result(self, x: Tensor, success: Tensor, after: Tensor | None = None) -> Saved:
        """What the other saver kept, with the estimates."""
        own = OwnRows(torch.stack(self._moved)) if self._moved else None

        def column(values: Sequence[Scalar]) -> Tensor:
            rows = stack(values, self._like)
            return rows if own is None else torch.where(own.kept, own.of(rows), 0)

        dt = column(self._dt).reshape(-1, *self._like.shape[1:])
        error, stiffness = (column(kept) if kept else None for kept in (self._errors, self._stiffness))
        return self._saver.result(x, success, after)._replace(internals=Internals(dt, error, stiffness))
