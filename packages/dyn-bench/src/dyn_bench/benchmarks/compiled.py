"""What compiling a solve brings, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.agreement import agreement
from dyn_bench.benchmarks.lotka_volterra_times import lotka_volterra_times
from dyn_bench.benchmarks.perceptron_times import perceptron_gradient_times
from dyn_bench.benchmarks.reach_chart import with_chart
from dyn_bench.benchmarks.setup import LOTKA_VOLTERRA, PERCEPTRON, VAN_DER_POL, Setup
from dyn_bench.benchmarks.van_der_pol_times import van_der_pol_times
from dyn_bench.experiment import Experiment, Outcome
from dyn_bench.protocols.compilation import nothing_compiled

__all__ = ["Compiled"]


@dataclass(frozen=True)
class Compiled(Experiment):
    """The compiled part of `overhead`, the seconds of first calls, and compiled solves against eager ones.

    It starts with nothing compiled. A first call takes what it takes a new user if nothing else ran before in the same
    process, where the compiler and its headers stay loaded.

    Args:
        van_der_pol: Setup of Van der Pol's equation.
        outputs: Number of its output times where there are many.
        lotka_volterra: Setup of Lotka and Volterra's equations.
        perceptron: Setup of the perceptron.
    """

    van_der_pol: Setup = VAN_DER_POL
    outputs: int = 100
    lotka_volterra: Setup = LOTKA_VOLTERRA
    perceptron: Setup = PERCEPTRON

    name: ClassVar[str] = "compiled"
    summary: ClassVar[str] = "What compiling a solve brings, and what it takes."
    source: ClassVar[str] = "torchdiffeq, torchode and diffrax, in the same run"

    def run(self, progress: Progress) -> Outcome:
        with nothing_compiled():
            return with_chart(
                "Compiled",
                van_der_pol_times(progress, self.van_der_pol, outputs=self.outputs, share=1 / 25, first_calls=True),
                van_der_pol_times(progress, self.van_der_pol, outputs=2, share=1 / 45),
                lotka_volterra_times(progress, self.lotka_volterra),
                perceptron_gradient_times(progress, self.perceptron, first_calls=True),
                agreement(progress, self.van_der_pol),
            )
