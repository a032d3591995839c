"""How far a solve has come, shown while it runs."""

from __future__ import annotations

from time import monotonic
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from dyn_numerics.ode.observer import AttemptedStep

__all__ = ["ProgressBar", "ShowProgress", "progress_bar"]

SHORTEST_PAUSE = 0.1  # seconds between two updates, each of which may wait for a device


@runtime_checkable
class ProgressBar(Protocol):
    """What shows progress: anything with the `update` of a tqdm bar whose total is 1."""

    def update(self, n: float) -> object:
        """Told which share of the span, up to 1 in all, was solved since the last call."""


def progress_bar(progress: bool | ProgressBar | None) -> ProgressBar | None:
    """Returns the bar of a user's `progress` argument: none, a tqdm bar for True, or the object itself.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is True and tqdm is not installed.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        try:
            from tqdm.auto import tqdm  # noqa: PLC0415
        except ImportError:
            raise ValueError(
                "progress: got True, which needs tqdm; try pip install tqdm, or pass an object with update(n)"
            ) from None
        bar: ProgressBar = tqdm(total=1.0, desc="odeint", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
        return bar
    if not isinstance(progress, ProgressBar):
        raise TypeError(f"progress: got a {type(progress).__name__}, expected True or an object with update(n)")
    return progress


class ShowProgress:
    """The observer that tells a bar which share of the span has been solved, on average over the samples.

    Args:
        bar: The bar; it is closed at the end if it can be.
        n: Number of samples in the batch, or 1.
    """

    def __init__(self, bar: ProgressBar, n: int) -> None:
        self._bar, self._n = bar, n
        self._shown = 0.0
        self._last = -SHORTEST_PAUSE

    def observe(self, attempted: AttemptedStep) -> None:
        """Moves the bar, unless it has only just been moved."""
        if attempted.moved is not False and monotonic() - self._last >= SHORTEST_PAUSE:
            self._last = monotonic()
            clock = attempted.problem.clock
            share = _share(attempted.t0, clock.start, clock.end)
            if attempted.samples is not None:  # the others have ended
                share = 1 - (1 - share) * len(attempted.samples) / self._n
            self._show(share)

    def _show(self, share: float) -> None:
        if share > self._shown:
            self._bar.update(share - self._shown)
            self._shown = share

    def close(self, start: Tensor, end: Tensor, reached: Tensor) -> None:
        """Shows what was solved in the end, and closes the bar.

        Args:
            start: Start of the span, `[*lead]`.
            end: End of the span.
            reached: Where the solve got.
        """
        self._show(_share(reached, start, end))
        close = getattr(self._bar, "close", None)
        if close is not None:
            close()


def _share(t: Any, start: Any, end: Any) -> float:
    if isinstance(t, Tensor):
        return float(((t.detach() - start) / (end - start)).nan_to_num(1.0).mean().item())
    return float((t - start) / (end - start))
