"""Ten thousand small systems at once, against SciPy in a loop."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from dyn_bench.experiment import Outcome
from dyn_bench.peers.scipy import scipy_roots
from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
from dyn_bench.protocols.comparison import Comparison, Goal
from dyn_bench.protocols.root_solve import dyn_root
from dyn_numerics import Termination

__all__ = ["powell_jacobian", "powell_system", "powell_times"]


def powell_times(progress: Progress, *, systems: int, repeats: int) -> Outcome:
    """Times Newton's method on Powell's singular system from starts around the standard one, compiled, float64.

    The Jacobian is singular at the root, and Newton's method halves the distance in each step. MINPACK's `hybr`, which
    tests the relative size of its steps, goes on at any tolerance until the residual has fallen by 28 decimals. For
    equal residuals, Newton's method is told to go on until a step is smaller than 1e-17.

    Args:
        progress: Where to show how far it is.
        systems: Number of systems.
        repeats: Rounds in which all solves are timed.

    Returns:
        The ratios of times, the seconds of the first call; what is known of each solve. Errors are residuals relative to
        that at the start; SciPy's evaluations are those of all systems together.
    """
    torch.compiler.reset()
    system = MORE_GARBOW_HILLSTROM["Powell singular"]
    z0 = system.starts(systems, scale=0.2, seed=0)
    first = system.function(z0).norm(dim=-1)

    def residual(z: Tensor) -> Tensor:
        relative: Tensor = system.function(z).norm(dim=-1) / first
        return relative

    newton = partial(dyn_root, system.function, z0, tolerance=1e-8, termination=Termination(step_atol=1e-17))
    scipy = partial(scipy_roots, powell_system, z0, tolerance=1e-8)
    entries = {
        "SciPy hybr": lambda: scipy().judged(residual),
        "SciPy hybr, Jacobian given": lambda: scipy(jac=powell_jacobian).judged(residual),
        "newton": lambda: newton().judged(residual),
        "compiled newton": lambda: newton(compiled=True).judged(residual),
    }
    goals = [Goal("compiled newton", name, 1 / 20) for name in entries if name.startswith("SciPy")]
    comparison = Comparison(f"{systems} Powell systems", torch.zeros(systems))
    return comparison.run(progress, entries, goals, repeats, first_calls=["compiled newton"])


def powell_system(z: Any) -> Any:
    """The system in NumPy, of one point `[4]`: SciPy is not to wait for torch."""
    a, b, c, d = z
    return np.array([a + 10 * b, sqrt(5) * (c - d), (b - 2 * c) ** 2, sqrt(10) * (a - d) ** 2])


def powell_jacobian(z: Any) -> Any:
    """Its Jacobian, `[4, 4]`."""
    a, b, c, d = z
    u, v = 2 * (b - 2 * c), 2 * sqrt(10) * (a - d)
    return np.array([[1, 10, 0, 0], [0, 0, sqrt(5), -sqrt(5)], [0, u, -2 * u, 0], [v, 0, 0, -v]])
