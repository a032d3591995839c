"""Euler's method with a network for what it leaves out."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.duffing import Duffing
from dyn_numerics import Euler, Heun, HyperStepper, Midpoint, RungeKutta4, Stepper, odeint

__all__ = ["Correction", "hyper_euler"]

END, STEPS = 10.0, 100  # steps of 0.1, one evaluation each
BATCH = 512
EVALUATIONS = (100, 200, 400)


class Correction(nn.Module):
    """A network of the state and the slope, which starts as zero. It is not told which problem it is.

    Args:
        width: Of its two hidden layers.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (4, width, width, 2)
        linear = [nn.Linear(m, n, dtype=torch.float64) for m, n in pairwise(sizes)]
        nn.init.zeros_(linear[-1].weight)
        nn.init.zeros_(linear[-1].bias)
        self.layers = nn.Sequential(linear[0], nn.Tanh(), linear[1], nn.Tanh(), linear[2])
        self.products = sum(layer.weight.numel() for layer in linear)

    def forward(self, t: Tensor, x: Tensor, f: Tensor) -> Tensor:
        correction: Tensor = self.layers(torch.cat([x, f], -1))
        return correction


def hyper_euler(progress: Progress, *, iterations: int, problems: int, held_out: int) -> Outcome:
    """Fits what single steps of Euler's method leave over, on Duffing's oscillators, and solves others with it.

    Its error is held against that of methods that evaluate the field as often. What the network costs comes on top:
    `products` multiplications at every step.

    Args:
        progress: Where to show it.
        iterations: Of Adam, each on a batch of single steps.
        problems: Number of oscillators to train on.
        held_out: Number of others to measure on.
    """
    problem, x0 = Duffing.family(problems, seed=0)
    exact = _exact(problem, x0, STEPS)
    starts, ends = exact[:-1].flatten(0, 1), exact[1:].flatten(0, 1)  # [STEPS * problems, 2]
    torch.manual_seed(0)
    net = Correction()
    solver, dt = HyperStepper(Euler(), net), END / STEPS
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in track(progress, range(iterations), iterations, "HyperEuler"):
        chosen = torch.randint(len(starts), (BATCH,))
        x = odeint(problem.take(chosen % problems), starts[chosen], [0.0, dt], solver=solver).x[-1]
        loss = ((x - ends[chosen]) / dt**2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    problem, x0 = Duffing.family(held_out, seed=2026)
    methods: dict[str, tuple[Stepper, int]] = {
        "HyperEuler": (solver, 1),
        "Euler": (Euler(), 1),
        "midpoint": (Midpoint(), 2),
        "Heun": (Heun(), 2),
        "classical": (RungeKutta4(), 4),
    }
    with torch.no_grad():
        errors = {
            name: [_error(method, problem, x0, evaluations // each) for evaluations in EVALUATIONS]
            for name, (method, each) in methods.items()
        }
    at = EVALUATIONS.index(STEPS)
    record: dict[str, Any] = {
        "evaluations": EVALUATIONS,
        "errors": errors,
        "products": net.products,
        "iterations": iterations,
    }
    ratios = {name: errors["HyperEuler"][at] / errors[name][at] for name in methods}
    bounds = {"Euler": 1.0, "midpoint": 1.0, "Heun": 1.0, "classical": inf}
    measurements = [
        Measurement(f"HyperEuler: error / {name}'s, equal evaluations", ratios[name], high=high)
        for name, high in bounds.items()
    ]
    return Outcome(measurements, {"hyper-euler": _draw(errors)}, {"HyperEuler": record})


def _exact(problem: Duffing, x0: Tensor, steps: int) -> Tensor:
    times = torch.linspace(0, END, steps + 1, dtype=torch.float64)
    exact: Tensor = odeint(problem, x0, times, solver="dopri8", rtol=1e-11, atol=1e-11).x
    return exact


def _error(method: Stepper, problem: Duffing, x0: Tensor, steps: int) -> float:
    """Root mean square over times, oscillators and their states."""
    times = torch.linspace(0, END, steps + 1, dtype=torch.float64)
    x: Tensor = odeint(problem, x0, times, solver=method).x
    return (x - _exact(problem, x0, steps)).square().mean().sqrt().item()


def _draw(errors: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    looks = (("#009E73", "-"), ("#0072B2", ":"), ("#D55E00", "--"), ("#CC79A7", "-."), ("0.5", ":"))
    for (name, values), (colour, style) in zip(errors.items(), looks, strict=True):
        axes.loglog(EVALUATIONS, values, style, color=colour, marker="o", label=name, linewidth=2)
    axes.axvline(STEPS, color="0.5", linestyle=":", linewidth=1)
    axes.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS], minor=False)
    axes.minorticks_off()
    axes.set(title="HyperEuler on other oscillators", xlabel="evaluations of the field", ylabel="error")
    axes.legend()
    return figure
