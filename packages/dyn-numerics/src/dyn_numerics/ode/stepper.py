"""The interface of a numerical method: one step from t0 to t1.

A stepper is pure. It works on flat states `[N]`, is handed whatever it wants to remember as `carry`, and never learns
why the step is taken, whether it will be accepted or who differentiates it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from dyn_numerics.ode.scalar import Scalar

__all__ = ["FlatField", "Step", "Stepper"]

FlatField = Callable[[Tensor, Tensor], Tensor]
"""A vector field `f(t, x)` on flat states `[N]`; `t` is `[]` in the real dtype of the state."""


class Step(NamedTuple):
    """What one step found.

    Attributes:
        x: State at `t1`, `[N]`.
        error: Estimate of the local error of `x`, `[N]` in state units, or None when the method has none.
        carry: What the next step wants to know when this one is accepted.
        retry: What a shorter step from the same start wants to know when this one is rejected.
        stages: Field evaluations of the step in the method's own order, `[s, N]`, float32 at least; the first is at its
            start.
    """

    x: Tensor
    error: Tensor | None
    carry: Any
    retry: Any
    stages: Tensor


class Stepper(nn.Module, ABC):
    """A one-step method. Subclass it to plug in your own, neural or not.

    Attributes:
        order: Order of convergence of the solution.
        error_order: Order of the error estimate's lower solution, so that the estimate is O(dt^(error_order + 1));
            None when the method has no estimate and steps on a fixed grid.
    """

    order: int
    error_order: int | None = None

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Any:
        """Makes the first `carry`; evaluates `f` only if the method wants its value and nobody has it.

        Args:
            f: Vector field `f(t, x)` on flat states.
            t: Start time, `[]` in the state's real dtype.
            x: Start state, `[N]`.
            slope: `f(t, x)`, `[N]`, if it has been evaluated already.
        """
        return None

    @abstractmethod
    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Any) -> Step:
        """Takes one step.

        Args:
            f: Vector field `f(t, x)` on flat states; `t` is `[]` in the state's real dtype.
            t0: Start of the step, a host number or a float64 tensor `[]`.
            t1: End of the step; earlier than `t0` in reversed time. `f` is not evaluated outside `[t0, t1]`.
            x: State at `t0`, `[N]`.
            carry: From `init`, or from the step before.
        """

    @abstractmethod
    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        """Adds to an accepted step what `interpolant` needs (for example `f` at its end) and a step does without.

        An evaluation made here must be reused by the next step, through `carry`.
        """

    @abstractmethod
    def interpolant(self, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        """Coefficients `[p + 1, N]` of the solution over a completed step, as a polynomial in (t - t0) / (t1 - t0).

        They are in the state's dtype or a wider one.
        """
