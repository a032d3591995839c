"""What a user's function makes of states, as vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.user_function import UserFunction

__all__ = ["KeptValues"]


class KeptValues:
    """A function `fn(t, x)` from flat states `[*lead, N]` to vectors `[*lead, M + 1]`, under the autocast of whoever makes this.

    They hold what the function returns, and one more element, which is NaN where the state is not finite: a function
    may well be NaN of a state that is.

    Args:
        fn: The user's function.
        layout: Layout of the state.
    """

    def __init__(self, fn: Callable[[Tensor, Any], Any], layout: StateLayout) -> None:
        self._fn, self._layout = UserFunction(fn, (), layout, "fn"), layout
        self._values: StateLayout | None = None  # what the first call returned

    def __call__(self, t: Scalar, x: Tensor) -> Tensor:
        """Evaluates the function, in memory that no state holds.

        Args:
            t: Time, a host number or `[*lead]`.
            x: State, `[*lead, N]`.

        Raises:
            TypeError: If it returns anything but floating or complex tensors, or others than the first time.
            ValueError: If shape or device differ from the first time, there is no batch where samples are problems of
                their own, or it writes into its arguments.
        """
        layout = self._layout
        found = self._fn.value(state_time(t, x), x)
        if self._values is None:
            self._values = StateLayout(found, "fn", bool(layout.lead))
            if self._values.lead != layout.lead:
                raise ValueError(
                    f"fn: returned {self._values.lead[0]} rows, expected one for each of the {layout.lead[0]} samples"
                )
        else:
            self._values.check("fn", found, like="at the start")
        flat = self._values.flatten(found)
        mark = torch.where(layout.finite(x.detach()), 0.0, torch.nan).to(flat)
        return torch.cat([flat, mark.unsqueeze(-1)], dim=-1)

    def finite(self, vectors: Tensor) -> Tensor:
        """Whether the states that vectors `[..., M + 1]` are of were finite, `[...]`."""
        return torch.isfinite(vectors[..., -1])

    def unflatten(self, vectors: Tensor) -> Any:
        """Reads what the function returned out of vectors `[..., M + 1]`; every leaf gets the leading dimensions."""
        if self._values is None:
            raise RuntimeError("the function has not been called")
        return self._values.unflatten(vectors[..., :-1])
