"""Gradients of a small neural ODE, by this library, torchdiffeq and diffrax."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.diffrax import diffrax_gradient
from dyn_bench.peers.torchdiffeq import torchdiffeq_gradient
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.equal_error import loosest_tolerance
from dyn_bench.protocols.solve import Solve, dyn_gradient, values_of

__all__ = ["gradient_times"]

ALGORITHMS = ("autograd", "adjoint")
LOOSER = (1e-2, 10**-2.5, 1e-3, 10**-3.5, 1e-4, 10**-4.5)
"""Tolerances beside that of the setup, the loosest first."""


def gradient_times(progress: Progress, setup: Setup) -> Outcome:
    """Times the gradient of the mean square of the last states with respect to the weights, eager and compiled.

    Eager gradients are held against torchdiffeq's of the same kind, compiled ones against its adjoint and diffrax's: at the same
    tolerance, and, since torchdiffeq returns states that it interpolated in a step beyond the end, as precise as its own.

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
    own: Callable[..., Solve] = partial(dyn_gradient, **problem)
    right = values_of(exact)

    def as_precise(name: str, peer: str, compiled: bool) -> Solve:
        """A gradient at the loosest tolerance at which no component is further off than the peer's are."""
        bound = _error(values_of(entries[peer]()), right).item()

        def judged(tolerance: float) -> Solve:
            return own(sensitivity=name, tolerance=tolerance).judged(lambda found: _error(found, right))

        tolerances = [*(tolerance for tolerance in LOOSER if tolerance > setup.tolerance), setup.tolerance]
        return own(sensitivity=name, tolerance=loosest_tolerance(judged, tolerances, bound), compiled=compiled)

    entries: dict[str, Callable[[], Solve]] = {
        "torchdiffeq autograd": partial(torchdiffeq_gradient, **problem, adjoint=False),
        "torchdiffeq adjoint": partial(torchdiffeq_gradient, **problem),
        "diffrax checkpoint": partial(diffrax_gradient, **problem),
        "diffrax adjoint": partial(diffrax_gradient, **problem, adjoint="backsolve"),
        **{f"eager {name}": partial(own, sensitivity=name) for name in ALGORITHMS},
        **{f"compiled {name}": partial(own, sensitivity=name, compiled=True) for name in ALGORITHMS},
        **{f"eager {name}, as precise": partial(as_precise, name, f"torchdiffeq {name}", False) for name in ALGORITHMS},
        **{
            f"compiled {name}, as precise": partial(as_precise, name, "torchdiffeq adjoint", True)
            for name in ALGORITHMS
        },
    }
    alike = ("", ", as precise")
    goals = [
        *(Goal(f"eager autograd{how}", "torchdiffeq autograd", 0.8) for how in alike),
        *(Goal(f"eager adjoint{how}", "torchdiffeq adjoint", 0.6) for how in alike),
        *(Goal(f"compiled {name}{how}", "torchdiffeq adjoint", 1 / 5) for name in ALGORITHMS for how in alike),
        # Who is no slower than both is no slower than the better one.
        *(Goal(f"compiled {name}", f"diffrax {way}", 1.1) for name in ALGORITHMS for way in ("checkpoint", "adjoint")),
    ]
    return Comparison("perceptron gradient", right).run(progress, entries, goals, setup.repeats)


def _error(found: Tensor, right: Tensor) -> Tensor:
    """The largest error of a component."""
    return (found.to(right.dtype) - right).abs().amax()


def _mean_square(x: Any) -> Any:
    """In arithmetic that torch and jax have in common."""
    return (x * x).mean()
