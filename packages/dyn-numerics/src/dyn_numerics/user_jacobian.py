"""A Jacobian that the user computes, as the numerics call it: on flat states, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.user_function import UserFunction

__all__ = ["UserJacobian"]


class UserJacobian(UserFunction):
    """A function `jac(t, x, *args)`, or `jac(x, *args)`, of flat states in whatever precision they come.

    Args:
        f: The user's function.
        args: Its extra arguments.
        layout: Layout of the state, which is a single tensor.
        name: What it is called in messages.
    """

    def __call__(self, t: Tensor | None, x: Tensor, form: Sequence[int], meaning: str) -> Tensor:
        """What the function returns, `[*lead, *form]` in the precision of the state that is handed in.

        Args:
            t: Time, `[*lead]`; None for a function of the state alone.
            x: State, `[*lead, N]`.
            form: Shape of a Jacobian.
            meaning: What its dimensions are, for the message.

        Raises:
            TypeError: If it returns no tensor, or one of another dtype than the user's state.
            ValueError: If it returns another shape or device, or writes into what it was handed.
        """
        dtype = self._layout.dtype
        found: Any = self.value(None if t is None else t.to(real_dtype(dtype)), x.to(dtype))
        expected = [*x.shape[:-1], *form]
        if not isinstance(found, Tensor):
            raise TypeError(f"{self._name}: returned a {type(found).__name__}, expected a tensor {expected}, {meaning}")
        if list(found.shape) != expected:
            raise ValueError(f"{self._name}: returned shape {list(found.shape)}, expected {expected}, {meaning}")
        if found.dtype != dtype:
            raise TypeError(
                f"{self._name}: returned dtype {found.dtype}, expected {dtype} as the state; cast in {self._name}"
            )
        if found.device != x.device:
            raise ValueError(f"{self._name}: returned device {found.device}, expected {x.device} as the state")
        return found.to(x.dtype)
