"""A continuous normalising flow that learns a mixture of eight Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

from dyn_bench.experiment import Experiment, Measurement, Outcome, track
from dyn_zoo import CNF
from dyn_zoo.datasets import EightGaussians

__all__ = ["Density"]

HALF_WIDTH = 6.0  # the mixture's mass beyond it is below 1e-16


class TimeField(nn.Module):
    """A multilayer perceptron of time and state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 2),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Slopes `[batch, 2]` at points `[batch, 2]`."""
        slope: Tensor = self.net(torch.cat([x, t.expand(len(x), 1)], dim=1))
        return slope


@dataclass(frozen=True)
class Density(Experiment):
    """Maximum likelihood with an exact trace; the entropy of the data is the floor of the negative log-likelihood.

    Args:
        iterations: Training iterations, each on a fresh batch.
        learning_rate: Greatest learning rate of Adam in a one-cycle schedule.
        batch: Points in a batch.
        width: Width of the field's three hidden layers.
        rtol: Relative tolerance in training; the evaluation has 1e-5.
        seed: Seed of model and training data; the test data have another.
        test_points: Number of held-out points.
        grid: Points a side of the grid on which the density is integrated.
    """

    iterations: int = 360
    learning_rate: float = 8e-3
    batch: int = 512
    width: int = 64
    rtol: float = 1e-3
    seed: int = 0
    test_points: int = 100_000
    grid: int = 200

    name: ClassVar[str] = "density"
    summary: ClassVar[str] = "A continuous normalising flow learns eight Gaussians."
    source: ClassVar[str] = "W. Grathwohl et al.: FFJORD (2019), figure 2"

    def run(self, progress: Progress) -> Outcome:
        torch.manual_seed(self.seed)
        data, generator = EightGaussians(), torch.Generator().manual_seed(self.seed)
        field = TimeField(self.width)
        losses = self._train(field, data, generator, progress)
        flow = CNF(field, dim=2, rtol=1e-5, atol=1e-5)
        floor = data.entropy
        with torch.no_grad():
            test = data.sample(self.test_points, seed=self.seed + 1)
            nll = -torch.cat([flow.log_prob(part) for part in torch.split(test, 10_000)]).double().mean().item()
            log_density = self._log_density(flow)
            cell = (2 * HALF_WIDTH / self.grid) ** 2
            mass = log_density.double().exp().sum().item() * cell
            samples = flow.sample(4_000, generator=generator)
        measurements = [
            Measurement("NLL, nats", nll, floor - 0.02, floor + 0.25),
            Measurement("integral of the density", mass, 0.99, 1.01),
        ]
        picture = _draw(data.sample(4_000, seed=self.seed + 2), samples, log_density.exp())
        return Outcome(measurements, {"samples": picture}, {"entropy": floor, "loss": losses})

    def _train(
        self, field: nn.Module, data: EightGaussians, generator: torch.Generator, progress: Progress
    ) -> list[float]:
        model = CNF(field, dim=2, rtol=self.rtol, atol=self.rtol)
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=self.iterations, pct_start=0.1
        )
        losses = []
        for _ in track(progress, range(self.iterations), self.iterations, self.name):
            loss = -model.log_prob(data.sample(self.batch, generator=generator)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return losses

    def _log_density(self, flow: CNF) -> Tensor:
        """Log-density `[grid, grid]` at the midpoints of the cells of a square, the second coordinate first."""
        edge = torch.linspace(-HALF_WIDTH, HALF_WIDTH, self.grid + 1)
        middle = (edge[1:] + edge[:-1]) / 2
        points = torch.cartesian_prod(middle, middle)
        return torch.cat([flow.log_prob(part) for part in torch.split(points, 10_000)]).reshape(self.grid, self.grid).T


def _draw(data: Tensor, samples: Tensor, density: Tensor) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharex=True, sharey=True)
    left.scatter(data[:, 0], data[:, 1], s=1, color="#0072B2")
    middle.scatter(samples[:, 0], samples[:, 1], s=1, color="#D55E00")
    limits = (-HALF_WIDTH, HALF_WIDTH, -HALF_WIDTH, HALF_WIDTH)
    image = right.imshow(density.numpy(), origin="lower", extent=limits, cmap="viridis")
    figure.colorbar(image, ax=right, label="density")
    for axes, title in ((left, "Data"), (middle, "Samples of the flow"), (right, "Density of the flow")):
        axes.set(title=title, xlabel="$x_1$", xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal")
    left.set_ylabel("$x_2$")
    return figure
