"""A small neural ODE, forward and with its gradient."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.setup import Setup
from dyn_bench.experiment import Outcome
from dyn_bench.peers.torchdiffeq import torchdiffeq_gradient
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.solve import Solve, dyn_gradient, dyn_solve, values_of

__all__ = ["perceptron_forward_times", "perceptron_gradient_times"]


def perceptron_forward_times(progress: Progress, setup: Setup) -> Outcome:
    """Times an eager solve against nothing but its evaluations of the field.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, tolerance, rounds.

    Returns:
        The ratio of times; what is known of each solve.
    """
    field = Perceptron(seed=setup.seed)
    x0, t = setup.initial_states(torch.float32), setup.times(2)
    exact = dyn_solve(deepcopy(field).double(), x0.double(), t, tolerance=1e-11)
    solve = dyn_solve(field, x0, t, tolerance=setup.tolerance)
    evaluations = int(solve.run().stats.n_evals)

    def evaluate() -> None:
        with torch.no_grad():
            for _ in range(evaluations):
                field(t, x0)

    entries = {"eager": lambda: solve, "its evaluations": lambda: Solve(evaluate)}
    goals = [Goal("eager", "its evaluations", 1.3)]
    return Comparison("perceptron forward", values_of(exact)).run(progress, entries, goals, setup.repeats)


def perceptron_gradient_times(progress: Progress, setup: Setup, *, first_calls: bool = False) -> Outcome:
    """Times the gradient of the mean square of the last states, compiled, against torchdiffeq's adjoint.

    Args:
        progress: Where to show how far it is.
        setup: Batch, end, rounds, and the tolerance, which is the adjoint solve's too.
        first_calls: Whether the seconds of first calls are held against their goal too.

    Returns:
        The ratios of times, and the seconds if they were wanted; what is known of each gradient.
    """
    torch.compiler.reset()
    field = Perceptron(seed=setup.seed)
    x0, t = setup.initial_states(torch.float32), setup.times(2)
    exact = dyn_gradient(deepcopy(field).double(), x0.double(), t, tolerance=1e-11, loss=_loss)
    gradient = partial(dyn_gradient, field, x0, t, tolerance=setup.tolerance, loss=_loss, compiled=True)
    entries = {
        "torchdiffeq": partial(torchdiffeq_gradient, field, x0, t, tolerance=setup.tolerance, loss=_loss),
        "compiled autograd": gradient,
        "compiled adjoint": partial(gradient, sensitivity="adjoint"),
    }
    goals = [Goal(f"compiled {way}", "torchdiffeq", 1 / 4) for way in ("autograd", "adjoint")]
    timed_first = [goal.solve for goal in goals] if first_calls else []
    return Comparison("perceptron gradient", values_of(exact)).run(progress, entries, goals, setup.repeats, timed_first)


def _loss(x: Tensor) -> Tensor:
    return x.square().mean()
