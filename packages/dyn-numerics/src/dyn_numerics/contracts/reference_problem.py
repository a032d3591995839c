"""What a problem must offer for a method to be measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

__all__ = ["ReferenceProblem"]


class ReferenceProblem(Protocol):
    """An initial value problem with a known solution, on flat states `[*lead, N]`.

    It should depend on time and be nonlinear, or orders are measured too high, and be written element by element, or the
    rounding of a sample depends on its neighbours.

    Attributes:
        starts: Start states, different ones, `[batch, N]`.
    """

    @property
    def starts(self) -> Sequence[Sequence[float]]: ...

    def __call__(self, *at: Any, **options: Any) -> Tensor:
        """The field, `[*lead, N]`, at a time `[*lead]` and a state `[*lead, N]`.

        That of a split method takes a third argument, `"a"` or `"b"`, for what this part adds; of a partitioned one the state
        is `q` and `p` of the same size, one behind the other.
        """

    def exact(self, t: Tensor, t0: float, x0: Tensor) -> Tensor:
        """The solution `[T, N]` at times `[T]`, from `x0`, `[N]`, at `t0`."""
