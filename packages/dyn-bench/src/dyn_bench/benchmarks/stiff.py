"""What stiff problems cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.automatic_choice import automatic_choice
from dyn_bench.benchmarks.ensemble_times import ensemble_times
from dyn_bench.benchmarks.newton_krylov import newton_krylov
from dyn_bench.benchmarks.reach_chart import with_chart
from dyn_bench.benchmarks.stiff_setup import (
    CURVES,
    GRID,
    OSCILLATORS,
    POLLU_ENSEMBLE,
    ROBER_ENSEMBLE,
    CurveSetup,
    EnsembleSetup,
    GridSetup,
    OscillatorSetup,
)
from dyn_bench.benchmarks.stiff_work_precision import stiff_work_precision
from dyn_bench.experiment import Experiment, Outcome
from dyn_bench.problems.pollu import POLLU, POLLU_TO_60
from dyn_bench.problems.rober import ROBER, ROBER_TO_1E11
from dyn_bench.protocols.compilation import nothing_compiled

__all__ = ["Stiff"]


@dataclass(frozen=True)
class Stiff(Experiment):
    """Time, evaluations, factorisations, steps and memory of the methods for stiff problems, beside SciPy's and diffrax's.

    Times are those of one thread, warm, in turn with the peer's; a figure is the median of the rounds' ratios. Solves that
    are compared have equal errors.

    Args:
        rober: An ensemble of small systems.
        pollu: One of larger ones.
        curves: Methods and tolerances of work and precision.
        oscillators: Oscillators from mild to stiff.
        grid: A reaction with diffusion.
    """

    rober: EnsembleSetup = ROBER_ENSEMBLE
    pollu: EnsembleSetup = POLLU_ENSEMBLE
    curves: CurveSetup = CURVES
    oscillators: OscillatorSetup = OSCILLATORS
    grid: GridSetup = GRID

    name: ClassVar[str] = "stiff"
    summary: ClassVar[str] = "What the methods for stiff problems cost, beside SciPy's and diffrax's."
    source: ClassVar[str] = "SciPy and diffrax, in the same run"

    def run(self, progress: Progress) -> Outcome:
        with nothing_compiled():
            return with_chart(
                "Stiff problems",
                ensemble_times(progress, ROBER_TO_1E11, ROBER, self.rober),
                ensemble_times(progress, POLLU_TO_60, POLLU, self.pollu),
                stiff_work_precision(progress, self.curves),
                automatic_choice(progress, self.oscillators),
                newton_krylov(progress, self.grid),
            )
