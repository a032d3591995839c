"""The jump of an event on flat states, and checked."""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.user_function import UserFunction

__all__ = ["Jump"]


class Jump:
    """What an event makes of the state.

    Args:
        name: What it is called in messages.
        function: The jump on flat states.
        layout: Layout of the state.
    """

    def __init__(self, name: str, function: UserFunction, layout: StateLayout) -> None:
        self._name, self._function, self._layout = name, function, layout

    def take(self, samples: Tensor) -> Jump:
        """The jump of some of the samples, whose indices are `[m]`."""
        return Jump(self._name, self._function.take(samples), self._layout)

    def __call__(self, t: Scalar, x: Tensor) -> Tensor:
        """The state after the jump, `[*lead, N]`; it may be made in place of the one before."""
        after = self._function.value(state_time(t, x), x.clone(), is_copy=True)
        self._layout.check(self._name, after, x.shape[:-1])
        return self._layout.flatten(after)
