"""The state of the random generators that a field may draw from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

__all__ = ["RandomState"]


class RandomState:
    """The state of the random generators as it is when this is made.

    Args:
        device: Where a field computes; it may draw there, and on the CPU.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.ode.random_state import RandomState
        >>> before = RandomState(torch.device("cpu"))
        >>> drawn = torch.rand(3)
        >>> with before.restored():
        ...     again = torch.rand(3)
        >>> torch.equal(again, drawn), before.is_current()
        (True, False)
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._states = self._now()

    def is_current(self) -> bool:
        """Whether nothing has been drawn since."""
        return all(torch.equal(a, b) for a, b in zip(self._now(), self._states, strict=True))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Where the generators are as they were; they go on afterwards as if nothing had been drawn."""
        with self.set_aside():
            torch.set_rng_state(self._states[0])
            if self._on_gpu:
                torch.cuda.set_rng_state(self._states[1], self._device)
            yield

    def set_aside(self) -> AbstractContextManager[None]:
        """Where the generators may be set and drawn from; they go on afterwards as if nothing had been done."""
        return torch.random.fork_rng([self._device] if self._on_gpu else [])

    def _now(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if self._on_gpu else [])]
