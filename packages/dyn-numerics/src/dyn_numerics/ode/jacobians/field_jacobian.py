"""The Jacobian of a vector field, and linear systems with it: what implicit methods need of a field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from torch import Tensor, nn

from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.stepper import FlatField

if TYPE_CHECKING:
    from dyn_numerics.ode.solve_context import SolveContext

__all__ = ["Factors", "FieldJacobian", "Linearisation", "Solved"]


class Linearisation(NamedTuple):
    """A field near a point.

    Attributes:
        slope: Its value there, `[*lead, N]`.
        rate: Its derivative by time, `[*lead, N]` in state units per square of a time unit; None if it was not asked for.
        jacobian: Its derivative by the state, as the `FieldJacobian` that made it knows it: a tensor, or a tuple of such,
            whose first dimensions are `lead`.
    """

    slope: Tensor
    rate: Tensor | None
    jacobian: Any


class Factors(Protocol):
    """What `FieldJacobian.factorise` makes: a named tuple of tensors whose first dimensions are `lead`."""

    @property
    def singular(self) -> Tensor:
        """Where the matrix is singular or not finite, `[*lead]`."""


class Solved(NamedTuple):
    """The solution of a linear system.

    Attributes:
        x: `[*lead, N]`; not finite where there is none.
        n_evals: Calls of `f` that this took in loops inside of a compiled program, which nobody else sees (`Step.n_evals`):
            a number or `[]`.
    """

    x: Tensor
    n_evals: int | Tensor = 0


class FieldJacobian(nn.Module, ABC):
    """Makes the Jacobian `J` of a field by its state, and solves linear systems with `W = I - shift J`.

    What it makes are tensors, so that a method can carry them from step to step and pick among them for each problem.

    Attributes:
        structured: Whether it wants to know how the user's state lies in its vectors.
    """

    structured: bool = False

    def on(self, context: SolveContext) -> Self:
        """Returns the one for such a solve: itself, unless the state's structure or the extra arguments matter to it."""
        return self

    def of_the_field(self) -> FieldJacobian:
        """The one for gradients, which are exact if it is: the field's own derivatives, whatever the user gave for these."""
        return self

    @abstractmethod
    def linearise(self, f: FlatField, t: Tensor, x: Tensor, with_rate: bool = False) -> Linearisation:
        """Value and derivatives of a field, from one call of it.

        Args:
            f: Vector field on flat states.
            t: Time, `[*lead]` in the real dtype of the state.
            x: State, `[*lead, N]`.
            with_rate: Whether the derivative by time is wanted.
        """

    @abstractmethod
    def factorise(self, jacobian: Any, shift: Scalar) -> Any:
        """Factorises `W = I - shift J`; the result is a `Factors`.

        Args:
            jacobian: From `linearise`.
            shift: A number, or `[*lead]`, in time units.
        """

    @abstractmethod
    def solve(self, f: FlatField, factors: Any, b: Tensor) -> Solved:
        """Solves `W x = b`; not finite where `W` is singular.

        Args:
            f: Vector field, for those that know the matrix by its products alone.
            factors: From `factorise`.
            b: Right-hand side, `[*lead, N]` in state units, as an iterative solver compares it with the tolerance.
        """
