"""What the solver costs beside the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.progress import Progress

from dyn_bench.benchmarks.lotka_volterra_times import lotka_volterra_times
from dyn_bench.benchmarks.perceptron_times import perceptron_forward_times, perceptron_gradient_times
from dyn_bench.benchmarks.reach_chart import with_chart
from dyn_bench.benchmarks.setup import LOTKA_VOLTERRA, PERCEPTRON, VAN_DER_POL, Setup
from dyn_bench.benchmarks.slowest_sample import slowest_sample
from dyn_bench.benchmarks.step_cost import step_cost
from dyn_bench.benchmarks.van_der_pol_times import van_der_pol_times
from dyn_bench.experiment import Experiment, Outcome

__all__ = ["Overhead"]


@dataclass(frozen=True)
class Overhead(Experiment):
    """Operations, host reads, traffic, memory and time of dopri5, counted or held against the peers'.

    Times are those of one thread, warm, in turn with the peer's; a figure is the median of the rounds' ratios.

    Args:
        van_der_pol: Setup of Van der Pol's equation.
        outputs: Number of its output times where there are many.
        lotka_volterra: Setup of Lotka and Volterra's equations.
        perceptron: Setup of the perceptron.
        elements: Length of the large state.
        steps: Number of steps of the long solve.
    """

    van_der_pol: Setup = VAN_DER_POL
    outputs: int = 100
    lotka_volterra: Setup = LOTKA_VOLTERRA
    perceptron: Setup = PERCEPTRON
    elements: int = 10**6
    steps: int = 10**4

    name: ClassVar[str] = "overhead"
    summary: ClassVar[str] = "What a solve costs beside its field, counted and against the peers."
    source: ClassVar[str] = "torchdiffeq, torchode and diffrax, in the same run"

    def run(self, progress: Progress) -> Outcome:
        return with_chart(
            "Overhead",
            step_cost(progress, elements=self.elements, steps=self.steps),
            slowest_sample(progress, self.van_der_pol),
            van_der_pol_times(progress, self.van_der_pol, outputs=self.outputs, share=1 / 25, eager=True),
            van_der_pol_times(progress, self.van_der_pol, outputs=2, share=1 / 45),
            lotka_volterra_times(progress, self.lotka_volterra),
            perceptron_forward_times(progress, self.perceptron),
            perceptron_gradient_times(progress, self.perceptron),
        )
