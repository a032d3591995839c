"""What a step of dopri5 costs, counted: operations, host reads, bytes moved, bytes kept."""

from __future__ import annotations

import gc
import tracemalloc
from typing import NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.experiment import Measurement, Outcome
from dyn_bench.protocols.operations import CountOperations
from dyn_numerics import Dopri5, odeint

__all__ = ["ideal_traffic", "step_cost"]


class Cost(NamedTuple):
    """What one attempt does: operations that compute, reads by the host, bytes moved."""

    computes: float
    reads: float
    moved: float


def step_cost(progress: Progress, *, elements: int, steps: int) -> Outcome:
    """Counts what an eager joint step does, with a field of one operation and without gradient.

    Args:
        progress: Where to show how far it is.
        elements: Length of the large state, float32, for the traffic.
        steps: Number of steps for the memory, which is held against that of a quarter of them.

    Returns:
        The counts; the memory in bytes.
    """
    task = progress.add_task("steps", total=4)
    small = _per_attempt(torch.ones(256, 2))
    progress.advance(task)
    large = _per_attempt(torch.ones(elements))
    progress.advance(task)
    states = round(large.moved / (4 * elements))  # whole ones: the coefficients of the method are none
    tensors = [_peak_of_tensors(n) for n in (steps // 4, steps)]
    progress.advance(task)
    python = [_peak_of_python(n) for n in (steps // 4, steps)]
    progress.advance(task)
    measurements = [
        Measurement("dopri5 step: operations that compute", small.computes, high=40),
        Measurement("dopri5 step: host reads", small.reads, low=1, high=1),
        Measurement(f"{elements:.0e} floats: bytes moved / ideal", states / ideal_traffic(), high=1.5),
        Measurement(f"{steps} steps: peak of tensors / of {steps // 4} steps", tensors[1] / tensors[0], high=1.01),
        Measurement(f"{steps} steps: peak of Python / of {steps // 4} steps", python[1] / python[0], high=1.1),
    ]
    return Outcome(measurements, {}, {"peak_of_tensors_bytes": tensors, "peak_of_python_bytes": python})


def ideal_traffic() -> int:
    """How many states a step of dopri5 has to read or write, in an implementation that fuses what can be.

    Every stage reads the state and the slopes that it uses, and writes one state; the field of one operation reads one
    and writes one; the error is the sum of the slopes that it uses, written once, and read once more with both states.
    """
    rows = [[weight for weight in row if weight] for row in Dopri5().tableau.numbers.rows]
    *stages, _, error = rows[1:]  # the last stage is the solution
    return sum(len(row) + 2 for row in stages) + 2 * len(stages) + len(error) + 1 + 3


def _one_operation(t: Tensor, x: Tensor) -> Tensor:
    return -x


def _forced(t: Tensor, x: Tensor) -> Tensor:
    return torch.cos(30 * t) * 30 + 0 * x


def _per_attempt(x0: Tensor) -> Cost:
    """The difference of two solves, so that start and end do not count; nor what a method keeps from its first solve."""
    _, few, many = (_count(x0, max_steps) for max_steps in (5, 5, 25))
    return Cost(*((more - less) / 20 for more, less in zip(many, few, strict=True)))


def _count(x0: Tensor, max_steps: int) -> Cost:
    with torch.no_grad(), CountOperations() as counts:
        odeint(_one_operation, x0, [0.0, 100.0], solver="dopri5", max_steps=max_steps, throw=False)
    return Cost(counts.computes, counts.reads, counts.moved)


def _march(steps: int) -> None:
    """Takes so many steps: far more would be needed to reach the end."""
    with torch.no_grad():
        odeint(_forced, torch.zeros(2), [0.0, float(steps)], solver="dopri5", max_steps=steps, throw=False)


def _peak_of_tensors(steps: int) -> int:
    _march(steps=10)  # what is kept from a first solve is not the steps'
    with CountOperations() as counts:
        _march(steps)
    return counts.peak


def _peak_of_python(steps: int) -> int:
    _march(steps=10)  # what is kept from a first solve is not the steps'
    gc.collect()
    tracemalloc.start()
    try:
        _march(steps)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
