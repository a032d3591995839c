"""A Runge-Kutta table that is trained on a family of problems."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor

from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.duffing import Duffing
from dyn_numerics import RungeKutta4, Stepper, odeint

__all__ = ["trained_table"]

END, STEPS = 20.0, 40  # steps of 0.5
FINER = (20, 28, 40, 57, 80, 113, 160)  # numbers of steps of the picture


def trained_table(progress: Progress, *, iterations: int, problems: int, held_out: int) -> Outcome:
    """Trains the classical method's ten coefficients on Duffing's oscillators, at one step size.

    The loss is the logarithm of the root mean square error over a solve. Nothing asks for an order, so that it is lost.

    Args:
        progress: Where to show it.
        iterations: Of Adam.
        problems: Number of oscillators to train on.
        held_out: Number of others to measure on.
    """
    problem, x0 = Duffing.family(problems, seed=0)
    exact = _exact(problem, x0, STEPS)
    method, start = RungeKutta4(trainable=True), RungeKutta4()
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in track(progress, range(iterations), iterations, "a table"):
        loss = _error(method, problem, x0, exact).log()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    problem, x0 = Duffing.family(held_out, seed=2026)
    curves: dict[str, list[float]] = {"classical": [], "trained": []}
    with torch.no_grad():
        for steps in FINER:
            exact = _exact(problem, x0, steps)
            for name, stepper in (("classical", start), ("trained", method)):
                curves[name].append(_error(stepper, problem, x0, exact).item())
    at = FINER.index(STEPS)
    a, b = (weights.detach().tolist() for weights in method.weights())
    record: dict[str, Any] = {"steps": FINER, "errors": curves, "a": a, "b": b, "iterations": iterations}
    measurements = [
        Measurement("table: error / the classical method's", curves["trained"][at] / curves["classical"][at], high=0.5),
        Measurement("table: order before", start.effective_order(), low=4, high=4),
        Measurement("table: order after", method.effective_order(), low=1),
    ]
    return Outcome(measurements, {"table": _draw(curves)}, {"table": record})


def _times(steps: int) -> Tensor:
    return torch.linspace(0, END, steps + 1, dtype=torch.float64)


def _exact(problem: Duffing, x0: Tensor, steps: int) -> Tensor:
    exact: Tensor = odeint(problem, x0, _times(steps), solver="dopri8", rtol=1e-11, atol=1e-11).x
    return exact


def _error(method: Stepper, problem: Duffing, x0: Tensor, exact: Tensor) -> Tensor:
    """Root mean square over times, oscillators and their states."""
    x: Tensor = odeint(problem, x0, _times(len(exact) - 1), solver=method).x
    return (x - exact).square().mean().sqrt()


def _draw(curves: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    sizes = [END / steps for steps in FINER]
    for (name, errors), (colour, style) in zip(curves.items(), (("#0072B2", ":"), ("#009E73", "-")), strict=True):
        axes.loglog(sizes, errors, style, color=colour, marker="o", label=name, linewidth=2)
    axes.axvline(END / STEPS, color="0.5", linestyle=":", linewidth=1)
    axes.set(title="A table trained at one step size, on other oscillators", xlabel="step size", ylabel="error")
    axes.legend()
    return figure
