"""What a field computed under in the forward solve, for evaluations that come later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dyn_numerics.autocast import autocast_of_caller
from dyn_sensitivity.ode.random_state import RandomState

__all__ = ["ForwardConditions"]


class ForwardConditions:
    """Autocast and the state of the random generators, as they are when this is made.

    Args:
        device: Where the field computes.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.ode.forward_conditions import ForwardConditions
        >>> before = ForwardConditions(torch.device("cpu"))
        >>> drawn = torch.rand(3)
        >>> with before.restored():
        ...     again = torch.rand(3)
        >>> torch.equal(again, drawn)
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._autocast = autocast_of_caller(device.type)
        self._randomness = RandomState(device)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Where everything is as it was; the generators go on afterwards as if nothing had been drawn."""
        with self._randomness.restored(), self._autocast():
            yield
