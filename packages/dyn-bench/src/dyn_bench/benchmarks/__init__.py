"""What solves and searches cost and what training brings, each benchmark in a file, by their names on the command line."""

from dyn_bench.benchmarks.compiled import Compiled
from dyn_bench.benchmarks.gradients import Gradients
from dyn_bench.benchmarks.overhead import Overhead
from dyn_bench.benchmarks.root_finding import RootFinding
from dyn_bench.benchmarks.stiff import Stiff
from dyn_bench.benchmarks.trained_fixed_point import TrainedFixedPoint
from dyn_bench.benchmarks.trained_solvers import TrainedSolvers
from dyn_bench.benchmarks.work_precision import WorkPrecision
from dyn_bench.experiment import Experiment

__all__ = ["BENCHMARKS"]

BENCHMARKS: dict[str, Experiment] = {
    benchmark.name: benchmark
    for benchmark in (
        Overhead(),
        Compiled(),
        WorkPrecision(),
        TrainedSolvers(),
        RootFinding(),
        TrainedFixedPoint(),
        Stiff(),
        Gradients(),
    )
}
"""The benchmarks, with their default settings, by name."""
