"""Every algorithm for gradients on the same two problems."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.gradient_setup import TableSetup
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.protocols.timing import one_thread
from dyn_numerics import ReversibleRungeKutta
from dyn_sensitivity import compare_gradients
from dyn_sensitivity.ode.odeint import ALGORITHMS

__all__ = ["algorithm_table"]

METHOD, REVERSIBLE = "tsit5", "with ReversibleRungeKutta"
COUPLING = 0.9  # nearer to 1 the two states of the reversible method part on both problems
CALM, DISSIPATIVE = "Lotka-Volterra", "friction"


def algorithm_table(progress: Progress, setup: TableSetup) -> Outcome:
    """Computes one gradient by every algorithm, with respect to the parameters of a field, float64.

    Lotka and Volterra's equations can be solved either way. The velocities of what friction carries along with the wind,
    `q' = v`, `v' = drag (cos t - v)`, approach each other, and part when they are solved backwards.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, tolerance.

    Returns:
        The errors on the first problem over the tolerance, that of `"reversible"` over that of `"autograd"` with the same
        method; errors, times, bytes and evaluations on both.
    """
    generator = torch.Generator().manual_seed(setup.seed)
    starts = 1 + torch.rand(setup.batch, 2, generator=generator, dtype=torch.float64)
    problems = {
        CALM: (_predators_and_prey, [1.5, 1.0, 1.0, 3.0]),
        DISSIPATIVE: (_carried_by_wind, [setup.drag]),
    }
    names = [name for name in ALGORITHMS if name != "reversible"]
    runs: list[tuple[dict[str, str], Any]] = [
        ({name: name for name in names}, METHOD),
        (
            {f"{name}, {REVERSIBLE}": name for name in ("autograd", "reversible")},
            ReversibleRungeKutta(METHOD, COUPLING),
        ),
    ]
    records: dict[str, dict[str, dict[str, Any]]] = {problem: {} for problem in problems}
    jobs = [(problem, run) for problem in problems for run in runs]
    for problem, (algorithms, solver) in track(progress, jobs, len(jobs), "every algorithm"):
        field, rates = problems[problem]
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors say what drift does
            table = compare_gradients(
                field,
                starts,
                [0.0, setup.end],
                loss=lambda solution: solution.x[-1].square().mean(),
                algorithms=algorithms,
                args=(torch.tensor(rates, dtype=torch.float64, requires_grad=True),),
                reference={"solver": "dopri8", "rtol": 1e-11, "atol": 1e-11},
                solver=solver,
                rtol=setup.tolerance,
                atol=setup.tolerance,
                repeats=setup.repeats,
            )
        for row in table.rows:
            known = asdict(row)
            name = known.pop("algorithm")
            records[problem][name] = {"failure": row.failure} if row.failure else known
    calm = records[CALM]
    measurements = [
        Measurement(
            f"{CALM}: error of {name} / tolerance",
            None if calm[name]["failure"] else calm[name]["error"] / setup.tolerance,
            high=100.0,
            reason=calm[name]["failure"],
        )
        for name in names
    ]
    exact, undone = (calm[f"{name}, {REVERSIBLE}"]["error"] for name in ("autograd", "reversible"))
    measurements.append(Measurement(f"{CALM}: error of reversible / of autograd", undone / exact, low=0.99, high=1.01))
    return Outcome(measurements, {}, records)


def _predators_and_prey(t: Tensor, x: Tensor, rates: Tensor) -> Tensor:
    growth, predation, gain, death = rates
    prey, predators = x.unbind(-1)
    return torch.stack([prey * (growth - predation * predators), predators * (gain * prey - death)], -1)


def _carried_by_wind(t: Tensor, x: Tensor, drag: Tensor) -> Tensor:
    velocity = x[..., 1]
    return torch.stack([velocity, drag * (torch.cos(t) - velocity)], -1)
