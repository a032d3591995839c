"""What gradients cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.algorithm_table import algorithm_table
from dyn_bench.benchmarks.equilibrium_gradients import equilibrium_gradients
from dyn_bench.benchmarks.equilibrium_setup import ALIKE, EquilibriumSetup
from dyn_bench.benchmarks.gradient_memory import gradient_memory
from dyn_bench.benchmarks.gradient_setup import (
    ALGORITHM_TABLE,
    GRADIENT_MEMORY,
    SEMINORM,
    MemorySetup,
    SeminormSetup,
    TableSetup,
)
from dyn_bench.benchmarks.gradient_times import gradient_times
from dyn_bench.benchmarks.reach_chart import with_chart
from dyn_bench.benchmarks.seminorm import seminorm_evaluations
from dyn_bench.benchmarks.setup import PERCEPTRON, Setup
from dyn_bench.experiment import Experiment, Outcome
from dyn_bench.protocols.compilation import nothing_compiled

__all__ = ["Gradients"]


@dataclass(frozen=True)
class Gradients(Experiment):
    """Time, evaluations, memory and errors of gradients, beside torchdiffeq's, diffrax's and torchdeq's.

    Times are those of one thread, warm, in turn with the peer's; a figure is the median of the rounds' ratios.

    Args:
        perceptron: Setup of the small neural ODE whose gradients are timed.
        seminorm: An adjoint whose parameters steer its steps, or do not.
        memory: Solves that are weighed.
        table: Problems for every algorithm.
        layer: An equilibrium layer, whose training steps are timed.
    """

    perceptron: Setup = PERCEPTRON
    seminorm: SeminormSetup = SEMINORM
    memory: MemorySetup = GRADIENT_MEMORY
    table: TableSetup = ALGORITHM_TABLE
    layer: EquilibriumSetup = ALIKE

    name: ClassVar[str] = "gradients"
    summary: ClassVar[str] = "What gradients cost, by algorithm, beside torchdiffeq's, diffrax's and torchdeq's."
    source: ClassVar[str] = "torchdiffeq, diffrax and torchdeq, in the same run"

    def run(self, progress: Progress) -> Outcome:
        with nothing_compiled():
            return with_chart(
                "Gradients",
                gradient_times(progress, self.perceptron),
                seminorm_evaluations(progress, self.seminorm),
                gradient_memory(progress, self.memory),
                algorithm_table(progress, self.table),
                equilibrium_gradients(progress, self.layer),
            )
