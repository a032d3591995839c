"""A trainable solver that starts as the midpoint method and learns to be Heun's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

from dyn_bench.experiment import Experiment, Measurement, Outcome, track
from dyn_models import NeuralODE
from dyn_numerics import Heun, Midpoint, RungeKutta2

__all__ = ["SolverInterpolation"]

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's colours, which colour-blind readers tell apart


@dataclass(frozen=True)
class SolverInterpolation(Experiment):
    """Figure 3 of the TorchDyn paper: `RungeKutta2(alpha)` from 1/2, the midpoint method, to 1, Heun's.

    The field is random, frozen and shared; only `alpha` is trained, through the solve, to match Heun's trajectories.

    Args:
        iterations: Training iterations.
        learning_rate: Learning rate of AdamW.
        seeds: Seeds of field and initial states, one run each.
        batch: Number of initial states, from a standard normal distribution in the plane.
        points: Number of points of the grid on `[0, 20]` that both solvers step on.
        tolerance: Largest `|alpha - 1|` that agrees with the paper.
    """

    iterations: int = 200
    learning_rate: float = 1e-2
    seeds: tuple[int, ...] = (0, 1, 2)
    batch: int = 100
    points: int = 100
    tolerance: float = 0.02

    name: ClassVar[str] = "solver-interpolation"
    summary: ClassVar[str] = "A trainable Runge-Kutta method learns to be Heun's."
    source: ClassVar[str] = "M. Poli et al.: TorchDyn (2021), figure 3"

    def run(self, progress: Progress) -> Outcome:
        measurements: list[Measurement] = []
        alphas: dict[int, list[float]] = {}
        pictures: dict[str, Figure] = {}
        for seed in self.seeds:
            alphas[seed], figure = self._train(seed, progress)
            final = alphas[seed][-1]
            measurements.append(Measurement(f"α, seed {seed}", final, 1 - self.tolerance, 1 + self.tolerance))
            pictures.setdefault("trajectories", figure)
        pictures["alpha"] = self._draw_alphas(alphas)
        return Outcome(measurements, pictures, {"alpha": {str(seed): values for seed, values in alphas.items()}})

    def _train(self, seed: int, progress: Progress) -> tuple[list[float], Figure]:
        """Trains one solver; returns alpha before and after every iteration, and a picture of the trajectories."""
        torch.manual_seed(seed)
        field = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)).requires_grad_(False)
        solver = RungeKutta2(alpha=0.5, trainable=True)
        model, target = NeuralODE(field, solver=solver), NeuralODE(field, solver=Heun())
        x0, t_span = torch.randn(self.batch, 2), torch.linspace(0, 20, self.points)
        wanted = target.trajectory(x0, t_span)
        optimizer = torch.optim.AdamW(solver.parameters(), lr=self.learning_rate)
        alphas = [solver.alpha.item()]
        for _ in track(progress, range(self.iterations), self.iterations, f"{self.name}, seed {seed}"):
            loss = (model.trajectory(x0, t_span) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            alphas.append(solver.alpha.item())
        with torch.no_grad():
            found = model.trajectory(x0, t_span)
            midpoint = NeuralODE(field, solver=Midpoint()).trajectory(x0, t_span)
        return alphas, self._draw_trajectories(t_span, midpoint, wanted, found)

    def _draw_trajectories(self, t: Tensor, midpoint: Tensor, heun: Tensor, trained: Tensor) -> Figure:
        """Draws the sample on which the two methods differ most, and how far they are from Heun over all samples.

        The trajectories lie so close together that a lens shows where they are furthest apart; dots are states at one time.
        """
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        plane, distance = figure.subplots(1, 2)
        gap = (midpoint - heun).norm(dim=-1)  # [T, batch]
        sample = int(gap.amax(0).argmax())
        at, widest = int(gap[:, sample].argmax()), float(gap[:, sample].max())
        (left, bottom), reach = heun[at, sample].tolist(), 4 * widest
        lens = plane.inset_axes(
            (0.3, 0.2, 0.4, 0.4),
            xlim=(left - reach, left + reach),
            ylim=(bottom - reach, bottom + reach),
            xticks=[],
            yticks=[],
        )
        for states, label, colour, style in (
            (midpoint, "midpoint", BLUE, ":"),
            (heun, "Heun", ORANGE, "-"),
            (trained, "trained", GREEN, "--"),
        ):
            x, y = states[:, sample].unbind(-1)
            plane.plot(x.tolist(), y.tolist(), style, color=colour, label=label, linewidth=2)
            lens.plot(x.tolist(), y.tolist(), style, color=colour, marker="o")
        plane.indicate_inset_zoom(lens, edgecolor="black")
        plane.set(title="The trajectory on which they differ most", xlabel="$x_1$", ylabel="$x_2$")
        plane.legend()
        for states, label, colour, style in ((midpoint, "midpoint", BLUE, ":"), (trained, "trained", GREEN, "--")):
            mean = (states - heun).norm(dim=-1).mean(1)
            distance.semilogy(t[1:].tolist(), mean[1:].tolist(), style, color=colour, label=label, linewidth=2)
        distance.set(title="Mean distance from Heun's trajectories", xlabel="time", ylabel="distance")
        distance.legend()
        return figure

    def _draw_alphas(self, alphas: dict[int, list[float]]) -> Figure:
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        axes = figure.subplots()
        looks = zip((BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=True)  # curves of several seeds may coincide
        for (seed, values), (colour, style) in zip(alphas.items(), looks, strict=False):
            axes.plot(values, style, color=colour, label=f"seed {seed}", linewidth=2)
        axes.axhline(0.5, color="0.5", linestyle=":", linewidth=1)
        axes.axhline(1.0, color="0.5", linestyle=":", linewidth=1)
        axes.annotate("Heun", (0, 1.0), xytext=(2, 3), textcoords="offset points", color="0.4")
        axes.annotate("midpoint", (self.iterations, 0.5), xytext=(-50, 3), textcoords="offset points", color="0.4")
        axes.margins(y=0.08)
        axes.set(title="From the midpoint method to Heun's", xlabel="iteration", ylabel="α")
        axes.legend()
        return figure
