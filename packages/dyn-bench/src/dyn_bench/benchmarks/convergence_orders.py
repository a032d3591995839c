"""How fast iterates approach their limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.root.contraction import Contraction
from dyn_bench.problems.root.cosine_map import cosine_map
from dyn_numerics import fixed_point

__all__ = ["convergence_orders", "draw_convergence"]

FINEST = 1e-13
"""Errors below are rounding."""

METHODS = ("newton", "broyden", "anderson", "fixed_point")


def convergence_orders(progress: Progress) -> Outcome:
    """Follows the errors of several methods step by step to the fixed point of the cosine, in float64, from 0.

    In one unknown Broyden's method is the secant method, whose order is 1.618, the golden ratio.

    Args:
        progress: Where to show how far it is.

    Returns:
        The orders of Newton's and Broyden's method, and the factor by which Picard's iteration lowers the error in the end
        over the rate of the map. Then the picture of all errors, and they.
    """
    problem = cosine_map(count=3).take(torch.tensor([1]))
    errors = {name: _errors(problem, name) for name in track(progress, METHODS, len(METHODS), "convergence")}
    before, last = errors["fixed_point"][-2:]
    measurements = [
        Measurement("newton: order of convergence", _order(errors["newton"]), low=1.9),
        Measurement("broyden: order of convergence, one unknown", _order(errors["broyden"]), low=1.5),
        Measurement(
            "fixed_point: last factor of the error / rate", last / before / problem.rate.item(), low=0.99, high=1.01
        ),
    ]
    return Outcome(measurements, {"convergence": draw_convergence(errors)}, {"convergence": errors})


def draw_convergence(errors: Mapping[str, Sequence[float]]) -> Figure:
    """Draws errors over steps: a straight line is linear convergence.

    Args:
        errors: The errors of each method, by its name, the first at the start.

    Example:
        >>> from dyn_bench.benchmarks.convergence_orders import draw_convergence
        >>> draw_convergence({"newton": [1e-1, 1e-2, 1e-4, 1e-8]}).axes[0].get_yscale()
        'log'
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    # Okabe and Ito's colours, which colour-blind readers tell apart.
    styles = zip(errors.items(), ("#0072B2", "#D55E00", "#E69F00", "#000000"), "osD.", strict=False)
    for (name, found), colour, marker in styles:
        axes.semilogy(range(len(found)), found, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
    axes.set(title="Convergence", xlabel="steps", ylabel="error")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _errors(problem: Contraction, solver: str) -> list[float]:
    """The errors at the start and after each step, as long as they are no rounding."""
    z, errors = problem.start, []
    while (error := problem.error(z).item()) > FINEST:
        errors.append(error)
        n = len(errors)
        z = fixed_point(problem.map, problem.start, solver=solver, rtol=1e-15, atol=0.0, max_steps=n, throw=False).z
    return errors


def _order(errors: Sequence[float]) -> float:
    """The slope of the logarithm of each error over that of the one before, of errors that are small."""
    small = [log(error) for error in errors if error < 0.1]
    slope: float = np.polyfit(small[:-1], small[1:], 1)[0].item()
    return slope
