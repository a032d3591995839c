"""How the steps of a chain are gone backwards: what is remembered of it, and what takes its steps again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from dyn_numerics.ode.observer import AttemptedStep

__all__ = ["Trail", "Walk"]


class Walk(Protocol):
    """The steps without gradient, as the solve took them."""

    def __len__(self) -> int: ...

    def forth(self, i: int, link: Any) -> Any:
        """The link behind step number `i`, from the one before it; None stands for the link before the first."""

    def back(self, i: int, link: Any, kept: Any) -> Any:
        """The link before step number `i`, from the one behind it and what `Chain.to_undo` returned."""


class Trail(Protocol):
    """What is remembered of a chain while it runs forwards, so that it can be gone backwards."""

    kept: Any
    """What it remembers, a pytree."""

    def passed(self, i: int, link: Any, attempted: AttemptedStep) -> None:
        """Told of every step in order.

        Args:
            i: Its number.
            link: The link before it.
            attempted: What observers see of it.
        """

    def arrived(self, link: Any) -> None:
        """Told of the link behind the last step."""

    def back(self, walk: Walk, kept: Any) -> Iterator[tuple[int, Any]]:
        """Yields the numbers of the steps from the last to the second, and the links before them.

        Args:
            walk: Takes steps.
            kept: What it remembers, which it leaves as it is.
        """
