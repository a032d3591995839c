"""Random numbers of a field that is evaluated again: the same in every repetition of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

__all__ = ["StepRandomness", "generator_states"]


def generator_states(device: torch.device) -> list[Tensor]:
    """States of the random generators that a field on that device may draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


class StepRandomness:
    """Seeds every step of a field that draws random numbers, such as dropout, by its number.

    A step that is taken again then draws what it drew before, whatever was drawn in between, and nothing has to be kept.

    Args:
        before: States of the generators before the field was first evaluated; a field that left them as they were is not
            random, and costs nothing.
        device: Where it computes.
    """

    def __init__(self, before: list[Tensor], device: torch.device) -> None:
        self._device = device
        now = generator_states(device)
        self._seed = None
        if any(not torch.equal(a, b) for a, b in zip(now, before, strict=True)):
            self._seed = int(torch.randint(2**62, ()))

    def __bool__(self) -> bool:
        return self._seed is not None

    def of(self, i: int) -> AbstractContextManager[None]:
        """Where step number `i` is taken."""
        return nullcontext() if self._seed is None else self._seeded(self._seed + i)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
