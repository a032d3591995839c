"""Random numbers of a field that is evaluated again: the same in every repetition of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from dyn_sensitivity.ode.random_state import RandomState

__all__ = ["StepRandomness"]


class StepRandomness:
    """Seeds every step of a field that draws random numbers, such as dropout, by its number.

    A step that is taken again then draws what it drew before, whatever was drawn in between, and nothing has to be kept.

    Args:
        before: The random generators before the field was first evaluated; a field that left them as they were is not
            random, and costs nothing.
    """

    def __init__(self, before: RandomState) -> None:
        self._before = before
        self._seed = None if before.is_current() else int(torch.randint(2**62, ()))

    def __bool__(self) -> bool:
        return self._seed is not None

    def of(self, i: int) -> AbstractContextManager[None]:
        """Where step number `i` is taken."""
        return nullcontext() if self._seed is None else self._seeded(self._seed + i)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        with self._before.set_aside():
            torch.manual_seed(seed)
            yield
