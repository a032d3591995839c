"""What a system of equations must offer for a method to be tested on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["ReferenceSystem"]


class ReferenceSystem(Protocol):
    """A system of equations with a known root, on flat iterates `[batch, N]`.

    It should be nonlinear and its Jacobian neither diagonal nor symmetric, or faults are overlooked, and be written element
    by element, or the rounding of a sample depends on its neighbours.

    Attributes:
        starts: Where to start, different places, `[batch, N]`.
    """

    @property
    def starts(self) -> Sequence[Sequence[float]]: ...

    def __call__(self, z: Tensor) -> Tensor:
        """The residual, `[batch, N]`, real or complex, of iterates `[batch, N]`."""

    def root(self, z0: Tensor) -> Tensor:
        """The roots that are found from starts `[batch, N]`, in their shape and dtype."""
