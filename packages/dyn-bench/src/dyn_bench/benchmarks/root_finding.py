"""What the search for roots and fixed points costs, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.broyden_memory import broyden_memory
from dyn_bench.benchmarks.convergence_orders import convergence_orders
from dyn_bench.benchmarks.equilibrium_setup import ALIKE, MIXED, SLOW, EquilibriumSetup
from dyn_bench.benchmarks.equilibrium_times import equilibrium_times, hard_sample_times
from dyn_bench.benchmarks.powell_times import powell_times
from dyn_bench.benchmarks.reach_chart import with_chart
from dyn_bench.benchmarks.standard_starts import standard_starts
from dyn_bench.experiment import Experiment, Outcome
from dyn_bench.protocols.compilation import nothing_compiled

__all__ = ["RootFinding"]


@dataclass(frozen=True)
class RootFinding(Experiment):
    """Evaluations, time and memory of searches, held against torchdeq's and SciPy's; what is solved, and how fast.

    Times are those of one thread, warm, in turn with the peer's; a figure is the median of the rounds' ratios. Solves that
    are compared return equal residuals.

    Args:
        alike: An equilibrium layer whose samples are alike.
        slow: One whose samples are alike, and slow.
        mixed: One of whose samples some are slow.
        systems: Number of Powell's systems.
        repeats: Rounds in which these are solved.
    """

    alike: EquilibriumSetup = ALIKE
    slow: EquilibriumSetup = SLOW
    mixed: EquilibriumSetup = MIXED
    systems: int = 10**4
    repeats: int = 3

    name: ClassVar[str] = "root-finding"
    summary: ClassVar[str] = "What searches for roots and fixed points cost and find, beside the peers'."
    source: ClassVar[str] = "torchdeq and SciPy, in the same run"

    def run(self, progress: Progress) -> Outcome:
        with nothing_compiled():
            return with_chart(
                "Root finding",
                equilibrium_times(progress, self.alike),
                equilibrium_times(progress, self.slow),
                hard_sample_times(progress, self.mixed),
                broyden_memory(progress, self.alike),
                powell_times(progress, systems=self.systems, repeats=self.repeats),
                standard_starts(progress),
                convergence_orders(progress),
            )
