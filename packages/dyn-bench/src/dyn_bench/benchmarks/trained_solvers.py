"""What training brings a solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.hyper_euler import hyper_euler
from dyn_bench.benchmarks.learned_controller import learned_controller
from dyn_bench.benchmarks.trained_table import trained_table
from dyn_bench.experiment import Experiment, Outcome
from dyn_bench.protocols.timing import one_thread

__all__ = ["TrainedSolvers"]


@dataclass(frozen=True)
class TrainedSolvers(Experiment):
    """A table, a hypersolver and a controller, each trained on some problems of a family and measured on others.

    Args:
        table_iterations: Iterations of the table's training.
        hyper_iterations: Iterations of the hypersolver's.
        generations: Generations of the controller's.
        problems: Number of oscillators to train on.
        orbits: Number of orbits to train on.
        held_out: Number of problems to measure on.
    """

    table_iterations: int = 500
    hyper_iterations: int = 3000
    generations: int = 60
    problems: int = 64
    orbits: int = 24
    held_out: int = 256

    name: ClassVar[str] = "trained-solvers"
    summary: ClassVar[str] = "What a trained table, hypersolver and controller gain on problems they have not seen."
    source: ClassVar[str] = "the methods that they started from, in the same run"

    def run(self, progress: Progress) -> Outcome:
        of_oscillators = {"problems": self.problems, "held_out": self.held_out}
        with one_thread():
            parts = (
                trained_table(progress, iterations=self.table_iterations, **of_oscillators),
                hyper_euler(progress, iterations=self.hyper_iterations, **of_oscillators),
                learned_controller(
                    progress, generations=self.generations, problems=self.orbits, held_out=self.held_out
                ),
            )
        return Outcome(
            [measurement for part in parts for measurement in part.measurements],
            {name: figure for part in parts for name, figure in part.pictures.items()},
            {name: record for part in parts for name, record in part.records.items()},
        )
