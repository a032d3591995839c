"""What training brings a solver of fixed points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

from dyn_bench.experiment import Experiment, Measurement, Outcome, track
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.protocols.timing import measure, one_thread
from dyn_numerics import (
    Anderson,
    Iterates,
    NeuralAnderson,
    RootStepper,
    convergence_loss,
    fixed_point,
    initial_loss,
    mixing_loss,
    unroll,
)

__all__ = ["Guess", "StartedAnderson", "TrainedFixedPoint"]

WIDTH, INPUTS, CONTRACTION = 64, 8, 0.95
STEPS, BATCH = 14, 64
RESIDUALS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
ROUNDS = 9

Loss = Callable[[Iterates, Tensor], Tensor]


class Guess(nn.Module):
    """What is added to the start: two layers on the input, of which the last starts as zero.

    Args:
        width: Of the hidden layer.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(INPUTS, width), nn.Linear(width, WIDTH)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        guess: Tensor = self.last(torch.relu(self.hidden(x)))
        return guess


class StartedAnderson(Anderson):
    """Anderson acceleration from the start that another method has learned.

    Args:
        learned: That method.
    """

    def __init__(self, learned: NeuralAnderson) -> None:
        super().__init__()
        self.learned = learned

    def start(self, z: Any, *args: Any) -> Any:
        return self.learned.start(z, *args)


def network() -> EquilibriumNetwork:
    """The layer whose fixed points are looked for; its weights stay as they are."""
    return EquilibriumNetwork(WIDTH, INPUTS, CONTRACTION).requires_grad_(False)


@torch.no_grad()
def solved(layer: EquilibriumNetwork, x: Tensor, solver: str | RootStepper, rtol: float) -> tuple[Tensor, Tensor]:
    """Fixed points `[batch, WIDTH]` from a start of zero, and the evaluations that each sample took, `[batch]`."""
    sol = fixed_point(layer, x.new_zeros(len(x), WIDTH), solver=solver, args=(x,), rtol=rtol, atol=0.0)
    return sol.z, sol.stats.n_steps + 1


def residuals(iterates: Iterates, exact: Tensor) -> Tensor:
    """The logarithms of all residuals after the start: every step counts alike."""
    return iterates.residual[1:].clamp(min=1e-8).log().mean()


def distances(iterates: Iterates, exact: Tensor) -> Tensor:
    """The convergence loss with weights that double with every step, so that late ones count, as its logarithm."""
    return convergence_loss(iterates, exact, 2.0 ** torch.arange(STEPS)).log().mean()


@dataclass(frozen=True)
class TrainedFixedPoint(Experiment):
    """A neural Anderson method, trained on inputs of an equilibrium layer and measured on others.

    Each of two is trained by one loss for its iterates and, as published, one for its start and one for its weights
    that fades out over the first third. All methods start at zero and stop each sample at its own residual, relative to the
    state. Every method has its default memory.

    Args:
        iterations: Of Adam, for each of them.
        problems: Number of inputs to train on.
        held_out: Number of inputs to measure on.
    """

    iterations: int = 800
    problems: int = 2048
    held_out: int = 512

    name: ClassVar[str] = "trained-fixed-point"
    summary: ClassVar[str] = "How many evaluations a trained solver of fixed points saves on inputs it has not seen."
    source: ClassVar[str] = "Anderson acceleration and Broyden's method, in the same run"

    def run(self, progress: Progress) -> Outcome:
        with one_thread():
            return self._run(progress)

    def _run(self, progress: Progress) -> Outcome:
        layer = network()
        x = _inputs(layer, self.problems, seed=1)
        solver = self._trained(layer, x, residuals, progress, "by residuals")
        by_distances = self._trained(layer, x, distances, progress, "by distances")
        methods: dict[str, str | RootStepper] = {
            "fixed-point iteration": "fixed_point",
            "Broyden": "broyden",
            "Anderson": Anderson(),
            "Anderson, learned start": StartedAnderson(solver),
            "neural": solver,
            "neural, by distances": by_distances,
        }
        x = _inputs(layer, self.held_out, seed=2026)
        evaluations = {
            name: [_mean_evaluations(layer, x, method, rtol) for rtol in RESIDUALS] for name, method in methods.items()
        }
        far = {name: _mean_evaluations(layer, 2 * x, methods[name], 1e-4) for name in ("Anderson", "neural")}

        def ratio(name: str, against: str, rtol: float) -> float:
            at = RESIDUALS.index(rtol)
            return evaluations[name][at] / evaluations[against][at]

        times = measure(
            {name: lambda name=name: solved(layer, x, methods[name], 1e-4) for name in ("Anderson", "neural")},  # type: ignore[misc]
            track(progress, range(ROUNDS), ROUNDS, "times"),
        )
        measurements = [
            *(
                Measurement(f"evaluations / Anderson's, to {rtol:.0e}", ratio("neural", "Anderson", rtol), high=1.0)
                for rtol in RESIDUALS[1:]
            ),
            Measurement("evaluations / Broyden's, to 1e-04", ratio("neural", "Broyden", 1e-4), high=1.0),
            Measurement(
                "evaluations / the fixed-point iteration's, to 1e-04",
                ratio("neural", "fixed-point iteration", 1e-4),
                high=1.0,
            ),
            Measurement(
                "evaluations / Anderson's from the learned start, to 1e-04",
                ratio("neural", "Anderson, learned start", 1e-4),
            ),
            Measurement(
                "trained by distances: evaluations / Anderson's, to 1e-04",
                ratio("neural, by distances", "Anderson", 1e-4),
            ),
            Measurement("inputs twice as large: evaluations / Anderson's, to 1e-04", far["neural"] / far["Anderson"]),
            Measurement("time / Anderson's, to 1e-04", times.ratio("neural", "Anderson")),
        ]
        record = {
            "residuals": RESIDUALS,
            "evaluations": evaluations,
            "inputs twice as large": far,
            "parameters": sum(parameter.numel() for parameter in solver.parameters()),
            "parameters of the layer": WIDTH * (WIDTH + INPUTS),
        }
        return Outcome(measurements, {"evaluations": _draw(evaluations)}, {"evaluations": record})

    def _trained(
        self, layer: EquilibriumNetwork, x: Tensor, loss: Loss, progress: Progress, name: str
    ) -> NeuralAnderson:
        exact, _ = solved(layer, x, Anderson(), 2e-6)
        torch.manual_seed(0)
        solver = NeuralAnderson(initial=Guess())
        optimizer = torch.optim.Adam(solver.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.iterations)
        for iteration in track(progress, range(self.iterations), self.iterations, name):
            chosen = torch.randint(len(x), (BATCH,))
            iterates = unroll(layer, torch.zeros(BATCH, WIDTH), solver=solver, args=(x[chosen],), n_steps=STEPS)
            fading = max(0.0, 0.1 * (1 - 3 * iteration / self.iterations))
            total = loss(iterates, exact[chosen]) + 0.5 * initial_loss(iterates, exact[chosen]).mean()
            total = total + fading * mixing_loss(iterates).mean()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return solver


def _inputs(layer: EquilibriumNetwork, count: int, seed: int) -> Tensor:
    """Inputs of half the usual size, which saturate less, so that the fixed points are farther."""
    x, _ = layer.inputs(count, seed=seed)
    return x / 2


def _mean_evaluations(layer: EquilibriumNetwork, x: Tensor, method: str | RootStepper, rtol: float) -> float:
    _, evaluations = solved(layer, x, method, rtol)
    return evaluations.double().mean().item()


def _draw(evaluations: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    looks = (
        ("0.5", ":"),
        ("#CC79A7", "-."),
        ("#0072B2", "--"),
        ("#56B4E9", (0, (5, 1))),
        ("#009E73", "-"),
        ("#D55E00", ":"),
    )
    for (name, values), (colour, style) in zip(evaluations.items(), looks, strict=True):
        axes.semilogx(RESIDUALS, values, color=colour, linestyle=style, marker="o", label=name, linewidth=2)
    axes.invert_xaxis()
    axes.set(title="On other inputs of the layer", xlabel="residual, relative to the state", ylabel="evaluations")
    axes.legend()
    return figure
