"""What of a step has gradients and is looked at by what keeps the outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.stepper import Step

__all__ = ["SeenStep", "without_tensors"]


class SeenStep(NamedTuple):
    """What is looked at of a step: tensors and numbers, so that others with a gradient can take their places.

    Attributes:
        start: The start of the step, as differentiable as it is, and so are the others.
        end: Its end.
        stepped: Its ends as the stepper received them.
        x: The state at its end.
        interpolant: Coefficients of the solution over the step, if it has some.
        occurrences: The events in it.
    """

    start: Any = None
    end: Any = None
    stepped: Any = None
    x: Tensor | None = None
    interpolant: Tensor | None = None
    occurrences: Any = ()

    @classmethod
    def of(cls, attempted: AttemptedStep) -> SeenStep:
        """What is looked at of a step that was taken."""
        interpolant = attempted.interpolant if attempted.problem.completes else None
        x, ends = attempted.step.x, (attempted.start, attempted.end, attempted.stepped)
        return cls(*ends, x, interpolant, attempted.occurrences)

    def shown(self, attempted: AttemptedStep) -> AttemptedStep:
        """That step, with these tensors in it."""
        start, end, stepped, x, interpolant, occurrences = self
        return replace(
            attempted,
            start=start,
            end=end,
            stepped=stepped,
            step=Step(x, None, None, None, None),  # type: ignore[arg-type]
            occurrences=occurrences,
            _interpolant=interpolant,
        )


def without_tensors(attempted: AttemptedStep) -> AttemptedStep:
    """A step without what is looked at of it, which is put back by `SeenStep.shown`."""
    return replace(SeenStep().shown(attempted), x0=None)  # type: ignore[arg-type]
