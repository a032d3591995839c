"""Gradients of a small neural ODE, by this library, torchdiffeq and diffrax."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from rich.progress import Progress

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.diffrax import diffrax_gradient
from dyn_bench.peers.torchdiffeq import torchdiffeq_gradient
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.solve import dyn_gradient, values_of

__all__ = ["gradient_times"]

ALGORITHMS = ("autograd", "adjoint")


def gradient_times(progress: Progress, setup: Setup) -> Outcome:
    """Times the gradient of the mean square of the last states with respect to the weights, eager and compiled.

    Eager gradients are held against torchdiffeq's of the same kind, compiled ones against its adjoint and diffrax's.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, rounds, and the tolerance, which is the adjoint solves' too.

    Returns:
        The ratios of times; what is known of each gradient.
    """
    torch.compiler.reset()
    field = Perceptron(seed=setup.seed)
    x0, t = setup.initial_states(torch.float32), setup.times(2)
    exact = dyn_gradient(deepcopy(field).double(), x0.double(), t, tolerance=1e-11, loss=_mean_square)
    problem: dict[str, Any] = {"field": field, "x0": x0, "t": t, "tolerance": setup.tolerance, "loss": _mean_square}
    own = partial(dyn_gradient, **problem)
    entries = {
        "torchdiffeq autograd": partial(torchdiffeq_gradient, **problem, adjoint=False),
        "torchdiffeq adjoint": partial(torchdiffeq_gradient, **problem),
        "diffrax checkpoint": partial(diffrax_gradient, **problem),
        "diffrax adjoint": partial(diffrax_gradient, **problem, adjoint="backsolve"),
        **{f"eager {name}": partial(own, sensitivity=name) for name in ALGORITHMS},
        **{f"compiled {name}": partial(own, sensitivity=name, compiled=True) for name in ALGORITHMS},
    }
    goals = [
        Goal("eager autograd", "torchdiffeq autograd", 0.8),
        Goal("eager adjoint", "torchdiffeq adjoint", 0.6),
        *(Goal(f"compiled {name}", "torchdiffeq adjoint", 1 / 5) for name in ALGORITHMS),
        # Who is no slower than both is no slower than the better one.
        *(Goal(f"compiled {name}", f"diffrax {way}", 1.1) for name in ALGORITHMS for way in ("checkpoint", "adjoint")),
    ]
    return Comparison("perceptron gradient", values_of(exact)).run(progress, entries, goals, setup.repeats)


def _mean_square(x: Any) -> Any:
    """In arithmetic that torch and jax have in common."""
    return (x * x).mean()
