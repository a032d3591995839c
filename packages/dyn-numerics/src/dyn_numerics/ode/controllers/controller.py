"""The interface of step-size control."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from dyn_numerics.ode.scalar import Scalar

__all__ = ["Controller", "Norm", "Verdict"]

Norm = Callable[[Any], Tensor]
"""Measures a scaled error, given in the structure of the state, as a real tensor of one element."""


class Verdict(NamedTuple):
    """What a controller thinks of one attempted step.

    Attributes:
        accept: Whether the step stands.
        factor: What the magnitude of the step size is to be multiplied with for the next attempt.
        memory: What the controller wants to know at the next attempt.
    """

    accept: bool | Tensor
    factor: Scalar
    memory: Any


class Controller(nn.Module, ABC):
    """Decides whether a step is accepted and how long the next one is. Subclass it to plug in your own.

    Its arithmetic must read the same on host numbers and on tensors (`dyn_numerics.ode.scalar`): joint stepping in
    Python calls it with numbers.

    Attributes:
        adaptive: Whether steps follow the error estimate; False for a fixed grid.
        first_step: Magnitude of the first step in time units, or None to have it estimated.
        norm: Norm of the scaled error, a function from the error in the structure of the state to a tensor `[]`;
            None for the root mean square over all elements of all leaves.
    """

    adaptive: bool = True
    first_step: float | None
    norm: Norm | None

    def __init__(self) -> None:
        super().__init__()
        self.first_step = None
        self.norm = None  # no attribute of the class: that would hide a norm that is a module

    def init(self) -> Any:
        """Makes the memory with which the first attempt is judged."""
        return None

    def with_norm(self, norm: Norm | None) -> Self:
        """Returns a copy that controls another problem: with a norm that suits it, and its first step estimated."""
        twin = copy.deepcopy(self)
        twin._modules.pop("norm", None)  # one that is a module does not give way to a function
        twin.norm, twin.first_step = norm, None
        return twin

    @abstractmethod
    def judge(self, error: Scalar, error_order: int, memory: Any) -> Verdict:
        """Judges an attempt.

        Args:
            error: Norm of the error estimate in units of the tolerance, so that 1 is just acceptable; infinity if the
                attempt was not finite.
            error_order: Order of the error estimate, as `Stepper.error_order`.
            memory: From `init` or the attempt before.
        """
