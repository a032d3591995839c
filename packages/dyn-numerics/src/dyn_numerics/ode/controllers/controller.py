"""The interface of step-size control."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from dyn_numerics.ode.scalar import Flag, Scalar
from dyn_numerics.seminorm import Seminorm

__all__ = ["Controller", "Norm", "Verdict"]

Norm = Callable[[Any], Tensor]
"""Measures a scaled error, given in the structure of the state: a real tensor of one element, or `[batch]` per sample."""


class Verdict(NamedTuple):
    """What a controller thinks of one attempted step.

    Attributes:
        accept: Whether the step stands.
        factor: What the magnitude of the step size is to be multiplied with for the next attempt.
        memory: What the controller wants to know at the next attempt.
    """

    accept: Flag
    factor: Scalar
    memory: Any


class Controller(nn.Module, ABC):
    """Decides whether a step is accepted and how long the next one is. Subclass it to plug in your own.

    Its arithmetic must read the same on host numbers and on tensors (`dyn_numerics.ode.scalar`): joint stepping in
    Python calls it with numbers, stepping per sample and a compiled solve with tensors, one element for each problem. Its
    memory is a number, a truth value, a tensor, or a tuple of such, of the same structure after every attempt.

    One that is `differentiable` receives tensors wherever it is used, with gradients or without. What it makes of an
    infinite error must be finite, derivatives included: clip it first.

    Example:
        >>> import torch
        >>> from dyn_numerics import Controller, Verdict, odeint
        >>> class Learned(Controller):
        ...     differentiable = True
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(1, 1)
        ...
        ...     def judge(self, error, error_order, memory):
        ...         size = error.clamp(1e-10, 1e10).log().float()  # errors are float64
        ...         learned = 0.1 * torch.tanh(self.net(size.unsqueeze(-1)).squeeze(-1))
        ...         factor = torch.exp(learned - 0.1 - 0.2 * size)
        ...         return Verdict(error <= 1, factor.clamp(0.2, 5.0).where(error <= 1, factor.clamp(0.2, 0.9)), memory)
        >>> controller = Learned()
        >>> odeint(lambda t, x: -x, torch.ones(3), [0.0, 1.0], controller=controller).x[-1].sum().backward()
        >>> controller.net.weight.grad is not None
        True

    Attributes:
        adaptive: Whether steps follow the error estimate; False for a fixed grid.
        jumps: Whether the field jumps at its `stops`.
        jump: What becomes of the state there, a function `jump(t, x, *args)`; None where it goes on as it is.
        differentiable: Whether its parameters are trained through the solve. Step sizes then carry gradients, through
            the errors that they were chosen by; otherwise they are constants to every gradient.
        first_step: Magnitude of the first step in time units, or None to have it estimated.
        min_step: Least magnitude of a step that a rejection may ask for, in time units; a solve that would need a
            shorter one fails. A step that ends at a time to land on may be shorter.
        max_step: Greatest magnitude of a step, in time units; one that lands on a time may be 1 % longer.
        norm: Norm of the scaled error, a function from the error in the structure of the state to a tensor `[]`, or
            `[batch]` under `stepping="per_sample"`; a seminorm over parts of the state; None for the root mean square over all elements of all leaves.
    """

    adaptive: bool = True
    jumps: bool = False
    jump: Callable[..., Any] | None = None
    differentiable: bool = False
    min_step: float = 0.0
    max_step: float = inf
    first_step: Scalar | None
    norm: Norm | Seminorm | None

    def __init__(self) -> None:
        super().__init__()
        self.first_step = None
        self.norm = None  # no attribute of the class: that would hide a norm that is a module

    @property
    def stops(self) -> Tensor | None:
        """Times, float64 `[n]` or `[n, batch]` in any order, that the solve has to land on besides its outputs; or None.

        One that has some says in `without_stops` how it steps without them.
        """
        return None

    def init(self) -> Any:
        """Makes the memory with which the first attempt is judged."""
        return None

    def with_norm(self, norm: Norm | Seminorm | None) -> Self:
        """Returns a copy that controls another problem: with a norm that suits it, and its first step estimated."""
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._modules = dict(self._modules)
        twin._modules.pop("norm", None)  # one that is a module does not give way to a function
        twin.norm, twin.first_step = norm, None
        return twin

    def with_first_step(self, first_step: Scalar | None) -> Self:
        """Returns a copy that begins with a step of a given magnitude, or with an estimated one."""
        twin = self.with_norm(self.norm)
        twin.first_step = first_step
        return twin

    def without_stops(self) -> Controller:
        """Returns the control of the steps alone; one that has stops has to override this.

        Raises:
            NotImplementedError: If it does not.
        """
        if self.stops is not None:
            raise NotImplementedError(
                f"{type(self).__name__}.without_stops: got a controller with stops that does not say how it steps without "
                f"them; override it, or use StopAt"
            )
        return self

    def in_unit(self, unit: float) -> Self:
        """Returns a copy that controls the same problem in another unit of time.

        Args:
            unit: Its length in the present one.
        """
        twin = self.with_first_step(None if self.first_step is None else self.first_step / unit)
        twin.min_step, twin.max_step = self.min_step / unit, self.max_step / unit
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
