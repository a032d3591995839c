"""A neural ODE that pulls two moons apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

from dyn_bench.experiment import Experiment, Measurement, Outcome, track
from dyn_models import NeuralODE
from dyn_zoo.datasets import Moons

__all__ = ["MoonsClassifier"]

COLOURS = ("#0072B2", "#D55E00")


class Classifier(nn.Module):
    """A flow of the plane and a line: the logit of class 1 is linear in where a point has flowed to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        field = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))
        self.flow = NeuralODE(field, solver="tsit5", rtol=1e-3, atol=1e-4)
        self.readout = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch]` of points `[batch, 2]`."""
        logits: Tensor = self.readout(self.flow.trajectory(x)[-1]).squeeze(-1)
        return logits


@dataclass(frozen=True)
class MoonsClassifier(Experiment):
    """A neural ODE and a linear readout, trained to tell two interleaved half circles apart.

    Args:
        iterations: Training iterations, each on a fresh batch.
        learning_rate: Learning rate of Adam.
        batch: Points in a batch.
        width: Width of the field's hidden layer.
        noise: Standard deviation of the noise on the moons.
        seed: Seed of model and training data; the test data have another.
        test_points: Number of held-out points.
        least_accuracy: Least share of them told right.
    """

    iterations: int = 300
    learning_rate: float = 2e-2
    batch: int = 256
    width: int = 32
    noise: float = 0.1
    seed: int = 0
    test_points: int = 10_000
    least_accuracy: float = 0.99

    name: ClassVar[str] = "moons"
    summary: ClassVar[str] = "A neural ODE tells two moons apart."
    source: ClassVar[str] = "R. T. Q. Chen et al.: Neural Ordinary Differential Equations (2018); TorchDyn quickstart"

    def run(self, progress: Progress) -> Outcome:
        torch.manual_seed(self.seed)
        data, generator = Moons(noise=self.noise), torch.Generator().manual_seed(self.seed)
        model = Classifier(self.width)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        losses = []
        for _ in track(progress, range(self.iterations), self.iterations, self.name):
            x, label = data.sample_labelled(self.batch, generator=generator)
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), label.to(x.dtype))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        x, label = data.sample_labelled(self.test_points, seed=self.seed + 1)
        with torch.no_grad():
            accuracy = ((model(x) > 0) == label.bool()).double().mean().item()
            pictures = {"boundary": _draw_boundary(model, x, label), "flow": _draw_flow(model, x, label)}
        measurement = Measurement("test accuracy", accuracy, low=self.least_accuracy, high=1.0)
        return Outcome([measurement], pictures, {"loss": losses})


def _draw_boundary(model: Classifier, x: Tensor, label: Tensor) -> Figure:
    figure = Figure(figsize=(5.2, 4), layout="constrained")
    axes = figure.subplots()
    low, high = x.amin(0) - 0.4, x.amax(0) + 0.4
    u, v = (torch.linspace(float(a), float(b), 160) for a, b in zip(low, high, strict=True))
    grid = torch.cartesian_prod(u, v)
    share = model(grid).sigmoid().reshape(160, 160).T
    filled = axes.contourf(u.numpy(), v.numpy(), share.numpy(), levels=20, cmap="coolwarm", alpha=0.6, vmin=0, vmax=1)
    axes.contour(u.numpy(), v.numpy(), share.numpy(), levels=[0.5], colors="black", linewidths=1.5)
    figure.colorbar(filled, ax=axes, label="probability of class 1", ticks=[0, 0.25, 0.5, 0.75, 1], shrink=0.65)
    for value, colour in enumerate(COLOURS):
        points = x[label == value][:250]
        axes.scatter(
            points[:, 0], points[:, 1], s=7, color=colour, edgecolors="white", linewidths=0.3, label=f"class {value}"
        )
    axes.set(title="Decision boundary", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    axes.legend(loc="upper right")
    return figure


def _draw_flow(model: Classifier, x: Tensor, label: Tensor) -> Figure:
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    x, label = x[:160], label[:160]
    paths = model.flow.trajectory(x, torch.linspace(0, 1, 40))  # [T, batch, 2]
    for value, colour in enumerate(COLOURS):
        chosen = paths[:, label == value]
        axes.plot(chosen[..., 0].numpy(), chosen[..., 1].numpy(), color=colour, alpha=0.25, linewidth=0.8)
        axes.scatter(
            chosen[0, :, 0], chosen[0, :, 1], s=8, facecolors="white", edgecolors=colour, label=f"class {value}, start"
        )
        axes.scatter(chosen[-1, :, 0], chosen[-1, :, 1], s=10, color=colour, label=f"class {value}, end")
    axes.set(title="The flow that separates them", xlabel="$x_1$", ylabel="$x_2$")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
