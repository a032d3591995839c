"""The interface of a sensitivity algorithm for differential equations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from dyn_numerics import Solution

__all__ = ["SensitivityAlgorithm"]


class SensitivityAlgorithm(ABC):
    """How the gradient of a solve is computed. Algorithms are interchangeable: none changes the values of the solve.

    Attributes:
        exact: Whether the gradient is that of the computed numbers with the accepted step sizes held fixed; otherwise it is
            approximate, and converges with the tolerance.
    """

    exact: ClassVar[bool] = False

    @abstractmethod
    def solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        *,
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        **options: Any,
    ) -> Solution:
        """Solves the problem so that its outputs can be differentiated.

        Args:
            f: Vector field `f(t, x, *args)`.
            x0: Initial state.
            t_span: Output times `[T]`.
            args: Further arguments of `f`.
            params: Tensors that `f` captures and that want gradients, beyond the parameters of modules it holds.
            **options: Everything else that `dyn_numerics.odeint` takes.
        """
