"""What is to become zero: the user's function as the numerics see it, on flat iterates, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dyn_numerics.norms import rms_norm_at_any_scale
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.user_function import UserFunction

__all__ = ["FixedPointResidual", "Residual"]


class Residual(UserFunction):
    """A function `f(z, *args)` of iterates `[batch, N]` that is to become zero.

    Iterates are in the user's precision, float32 at least; the function is handed its own.

    Args:
        f: The user's function.
        args: Its extra arguments.
        layout: Layout of the state.
        name: What it is called in messages.

    Attributes:
        is_relative_to_start: Whether residuals are compared with that at the start, which says little of a start far away.
    """

    is_relative_to_start = True

    symbol = "z"

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], layout: StateLayout, name: str = "f") -> None:
        super().__init__(f, args, layout, name)
        self.layout = layout

    def __call__(self, z: Tensor) -> Tensor:
        """The residual of an iterate, `[batch, N]`.

        Raises:
            TypeError: If the function returns another structure or dtype than the state's.
            ValueError: If it returns another shape or device, or writes into the state or into what it returned before.
        """
        try:
            found = self.value(None, z.to(self.layout.dtype))
            self.layout.check(self._name, found, z.shape[:-1])
        except (RuntimeError, ValueError) as error:
            if z.shape[:-1] != self.layout.lead:
                error.add_note(
                    "With compact=True the batch shrinks: pass what belongs to samples as PerSample in args."
                )
            raise
        flat = self.layout.flatten(found)
        self._refuse_overwritten(flat)
        return flat.to(z.dtype)

    def scale(self, z: Tensor, value: Tensor, first: Tensor) -> Tensor:
        """What a residual is compared with, in its units, `[batch]`: the norm of that at the start.

        Args:
            z: Iterate, `[batch, N]`.
            value: Its residual, `[batch, N]`.
            first: Norm of the residual at the start, `[batch]`.
        """
        return first


class FixedPointResidual(Residual):
    """The residual of a fixed point: `h(z) - z`, compared with `h(z)`."""

    is_relative_to_start = False

    def __call__(self, z: Tensor) -> Tensor:
        """The residual of an iterate, as `Residual`."""
        return super().__call__(z) - z.to(self.layout.dtype).to(z.dtype)

    def scale(self, z: Tensor, value: Tensor, first: Tensor) -> Tensor:
        """The norm of `h(z)`, `[batch]`."""
        return rms_norm_at_any_scale(z + value)
