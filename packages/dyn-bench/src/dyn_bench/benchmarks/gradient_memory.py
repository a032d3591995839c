"""What a solve keeps for its gradient, in bytes, over few steps and many."""

from __future__ import annotations

from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.gradient_setup import MemorySetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.protocols.operations import gradient_bytes
from dyn_numerics import ReversibleRungeKutta, RungeKutta4
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_sensitivity import RecursiveCheckpoint, odeint

__all__ = ["gradient_memory"]

TIME_AND_SIZE = 16  # bytes that a step may leave behind


def gradient_memory(progress: Progress, setup: MemorySetup) -> Outcome:
    """Weighs solves over several numbers of fixed steps, of a field that saves as much as its state, float64.

    What is alive between solve and backward pass is more than what hooks for saved tensors see: algorithms hold states
    elsewhere too. Of it, what was there before counts for nothing.

    Args:
        progress: Where to show how far it is.
        setup: State, steps, methods.

    Returns:
        The bytes over what is allowed, by algorithm; all bytes, and the peaks of both passes.
    """
    method = RungeKutta4()
    reversible = {f"reversible, {name}": stepper(name) for name in setup.reversible}
    reversible["reversible, ReversibleRungeKutta(rk4)"] = ReversibleRungeKutta(method)
    cases: dict[str, dict[str, Any]] = {
        "autograd": {"solver": method},
        "checkpoint": {"solver": method, "sensitivity": RecursiveCheckpoint(setup.budget)},
        "adjoint": {"solver": method, "sensitivity": "adjoint"},
        **{name: {"solver": solver, "sensitivity": "reversible"} for name, solver in reversible.items()},
    }
    x0 = torch.linspace(-1, 1, setup.elements, dtype=torch.float64).requires_grad_()
    state = x0.nbytes
    kept: dict[str, dict[int, int]] = {name: {} for name in cases}
    records: dict[str, dict[str, int]] = {name: {} for name in cases}
    few, some, many = setup.steps
    runs = [(name, steps) for name in cases for steps in (few, few, some, many)]  # the first finds nothing warm
    for name, steps in track(progress, runs, len(runs), "memory of gradients"):

        def loss(options: dict[str, Any] = cases[name], steps: int = steps) -> Tensor:
            x: Tensor = odeint(_field, x0, [0.0, 1.0], step_size=1 / steps, **options).x
            return x[-1].square().sum()

        kept[name][steps], peak = gradient_bytes(loss, [x0])
        records[name] |= {f"{steps} steps": kept[name][steps], f"{steps} steps, peak": peak}

    def a_step(name: str, first: int, last: int) -> float:
        return (kept[name][last] - kept[name][first]) / (last - first)

    stages = method.tableau.stages
    measurements = [
        Measurement(
            "autograd: bytes a step without those that f saves / stages · state",
            (a_step("autograd", some, many) - stages * state) / (stages * state),
            high=1.2,
        ),
        Measurement(
            f"autograd: bytes a step from {some} to {many} steps / from {few} to {some}",
            a_step("autograd", some, many) / a_step("autograd", few, some),
            low=0.99,
            high=1.01,
        ),
        Measurement(
            f"checkpoint, {many} steps: bytes / budget · state",
            (kept["checkpoint"][many] - 2 * state) / (setup.budget * state),  # without the outputs
            high=1.0,
        ),
        Measurement("adjoint: bytes a step", a_step("adjoint", few, many), high=0.0),
        *(Measurement(f"{name}: bytes a step", a_step(name, few, many), high=TIME_AND_SIZE) for name in reversible),
    ]
    return Outcome(measurements, {}, {"gradient_memory": records})


def _field(t: Tensor, x: Tensor) -> Tensor:
    """Saves its argument for the backward pass, nothing more."""
    return torch.sin(x)
