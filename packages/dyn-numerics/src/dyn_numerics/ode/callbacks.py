"""Functions of the user's that are called along a solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.times import time_dtype
from dyn_numerics.pytree_state import StateLayout

__all__ = ["Callback", "Callbacks"]

Callback = Callable[[Tensor, Any, Tensor], object]
"""Called with the start of an attempt, the state there and the signed step; what it returns is not looked at."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called along a solve, each as `callback(t, x, dt)`.

    `t` is where an attempt starts, `x` the state there and `dt` the signed step; all without gradient. In joint stepping
    `t` and `dt` are float64 `[]`, and `x` has the structure of the state. Under `stepping="per_sample"` every attempt
    is one of the whole batch: `t` and `dt` are `[batch]`, and `on_accept` and `on_reject` are called where at least one
    running sample was accepted or rejected, with those samples alone. With `compact=True` all of them see the samples that
    are still in the batch, which no sample leaves where step sizes are learned.

    Args:
        on_step: Called after every attempt.
        on_accept: Called after every accepted one.
        on_reject: Called after every rejected one.

    Raises:
        TypeError: If one of them cannot be called.

    Example:
        >>> import torch
        >>> from dyn_numerics import Callbacks, odeint
        >>> steps = []
        >>> watch = Callbacks(on_accept=lambda t, x, dt: steps.append(dt.item()))
        >>> sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], callbacks=watch)
        >>> len(steps) == sol.stats.n_accepted.item()
        True
    """

    on_step: Callback | None = None
    on_accept: Callback | None = None
    on_reject: Callback | None = None

    def __post_init__(self) -> None:
        for name in ("on_step", "on_accept", "on_reject"):
            callback = getattr(self, name)
            if callback is not None and not callable(callback):
                raise TypeError(f"{name}: got a {type(callback).__name__}, expected a function of (t, x, dt), or None")


class TellCallbacks:
    """The observer that calls a user's callbacks.

    Args:
        callbacks: The callbacks.
        layout: Layout of the state.
    """

    def __init__(self, callbacks: Callbacks, layout: StateLayout) -> None:
        self._callbacks, self._layout = callbacks, layout

    def observe(self, attempted: AttemptedStep) -> None:
        """Calls what is to be called."""
        callbacks, moved = self._callbacks, attempted.moved
        t0, t1, x = self._number(attempted.t0), self._number(attempted.t1), attempted.x0.detach().clone()

        def call(callback: Callback | None, which: Tensor | None) -> None:
            if callback is not None and (which is None or bool(which.any())):
                t, end, state = (t0, t1, x) if which is None else (t0[which], t1[which], x[which])
                callback(t, self._layout.unflatten(state), end - t)

        call(callbacks.on_step, None)
        if isinstance(moved, Tensor) and moved.dim():
            call(callbacks.on_accept, moved)
            call(callbacks.on_reject, attempted.running & ~moved)
        else:
            call(callbacks.on_accept if bool(moved) else callbacks.on_reject, None)

    def _number(self, t: Scalar) -> Tensor:
        device = self._layout.device
        return t.detach() if isinstance(t, Tensor) else torch.tensor(t, dtype=time_dtype(device), device=device)
