"""Times of several works, measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch

__all__ = ["Timings", "measure", "one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread, and afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Timings:
    """The times of works that took turns.

    Attributes:
        seconds: The times of each work, one for every round, by its name.
    """

    seconds: Mapping[str, list[float]]

    def median(self, work: str) -> float:
        """The median of a work's times, in seconds."""
        return median(self.seconds[work])

    def ratio(self, work: str, against: str) -> float:
        """The median over the rounds of one work's time divided by another's in the same round.

        What slows the machine down for a while slows both, and leaves their ratio as it is.
        """
        pairs = zip(self.seconds[work], self.seconds[against], strict=True)
        return median(one / other for one, other in pairs)


def measure(
    works: Mapping[str, Callable[[], object]],
    rounds: Iterable[object],
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = perf_counter,
) -> Timings:
    """Times works in turn, on one thread: every round each of them once, after calls that nobody times.

    Args:
        works: What is timed, by name.
        rounds: One element for every round, `range(11)`, say, or a generator that shows progress.
        warm_up: Calls right before each timed one, so that it finds its program and its data where the last one left them.
        clock: Tells the time in seconds.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.timing import measure
        >>> x = torch.ones(1000)
        >>> timings = measure({"sum": x.sum, "sort": x.sort}, range(5))
        >>> timings.ratio("sum", "sort") > 0
        True
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with one_thread():
        for _ in rounds:
            for name, work in works.items():
                for _ in range(warm_up):
                    work()
                start = clock()
                work()
                seconds[name].append(clock() - start)
    return Timings(seconds)
