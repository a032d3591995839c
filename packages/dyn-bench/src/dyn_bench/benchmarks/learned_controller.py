"""Step-size control that is trained on a family of problems, against PID controllers."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor

from dyn_bench.benchmarks.neural_controller import NeuralController
from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.problems.two_body import TwoBody
from dyn_bench.protocols.evolution import evolve
from dyn_numerics import Controller, PIDController, odeint

__all__ = ["learned_controller"]

END, OUTPUTS = 12.0, 21
TRAINED = (1e-4, 10**-5.5, 1e-7)
SWEPT = tuple(10 ** (-half / 2) for half in range(6, 19))
ERRORS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PAIRS = 10

# I, PI and PID controllers with coefficients of the usual sizes, each with three safeties.
COEFFICIENTS = {
    "I": (0.0, 1.0, 0.0),
    "I, 0.7": (0.0, 0.7, 0.0),
    "PI, 0.13 0.7": (0.13, 0.7, 0.0),
    "PI, 0.4 0.3": (0.4, 0.3, 0.0),
    "PI, 0.2 0.4": (0.2, 0.4, 0.0),
    "PID, 0.49 0.34 0.1": (0.49, 0.34, 0.1),
}
SAFETIES = (0.5, 0.7, 0.9)


class Curve(NamedTuple):
    """Work and precision of a controller on a set of problems: logarithms, means over the problems, `[tolerances]`."""

    evaluations: Tensor
    error: Tensor

    def evaluations_at(self, error: Tensor) -> Tensor:
        """Logarithm of the evaluations at logarithms of errors, between the measured ones."""
        order = self.error.argsort()
        return torch.as_tensor(np.interp(error, self.error[order], self.evaluations[order]))


class Orbits:
    """Problems, and their right solutions.

    Args:
        count: Number of orbits.
        seed: Seed of their eccentricities.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.x0 = TwoBody.starts(count, seed)
        self.t = torch.linspace(0, END, OUTPUTS, dtype=torch.float64)
        options: dict[str, Any] = {"solver": "dopri8", "rtol": 1e-12, "atol": 1e-12, "stepping": "per_sample"}
        self.exact = odeint(TwoBody(), self.x0, self.t, **options).x

    @torch.no_grad()
    def solve(self, controller: Controller, tolerances: tuple[float, ...], copies: int = 1) -> tuple[Tensor, Tensor]:
        """Logarithms of evaluations and errors, means over the orbits, `[copies, tolerances]`.

        All are solved together, each with its own steps; one that fails, as another controller may make it, has an error
        of 1000.
        """
        count, times = len(self.x0), copies * len(tolerances)
        each = torch.tensor(tolerances, dtype=torch.float64).repeat_interleave(count).repeat(copies).unsqueeze(-1)
        solution = odeint(
            TwoBody(),
            self.x0.repeat(times, 1),
            self.t,
            solver="dopri5",
            rtol=each,
            atol=each,
            stepping="per_sample",
            controller=controller,
            max_steps=2000,
            throw=False,
        )
        error = (solution.x - self.exact.repeat(1, times, 1)).square().mean((0, 2)).sqrt()
        error = torch.where(torch.isfinite(error), error, 1e3)
        evaluations = solution.stats.n_active_evals.double()
        shape = (copies, len(tolerances), count)
        return evaluations.log().reshape(shape).mean(-1), error.log().reshape(shape).mean(-1)

    def curve(self, controller: Controller) -> Curve:
        """Its work and precision at all tolerances."""
        evaluations, error = self.solve(controller, SWEPT)
        return Curve(evaluations[0], error[0])


def learned_controller(progress: Progress, *, generations: int, problems: int, held_out: int) -> Outcome:
    """Trains a controller on orbits to need fewer evaluations than PID controllers at equal error.

    The cost is the logarithm of evaluations over those of the PID controller that was best on the same orbits, at the
    error that was reached: whoever loosens the tolerance wins nothing. A population of controllers is tried in one batch.
    A PID controller is tuned in the same way, half as long; the learned one starts from it.

    Args:
        progress: Where to show it.
        generations: Of the evolution strategy.
        problems: Number of orbits to train on.
        held_out: Number of others to measure on.
    """
    errors = torch.tensor(ERRORS, dtype=torch.float64).log()
    named = {f"{name}, safety {safety:g}": (*pid, safety) for name, pid in COEFFICIENTS.items() for safety in SAFETIES}
    pids = {name: PIDController(p, i, d, safety=safety) for name, (p, i, d, safety) in named.items()}
    orbits = Orbits(problems, seed=0)
    curves = {name: orbits.curve(pid) for name, pid in track(progress, pids.items(), len(pids), "PID controllers")}
    first = _best(curves, errors)

    def cost(population: Tensor) -> Tensor:
        controller = NeuralController(population.repeat_interleave(len(TRAINED) * problems, 0))
        evaluations, error = orbits.solve(controller, TRAINED, copies=len(population))
        return (evaluations - curves[first].evaluations_at(error)).mean(-1)

    def evolved(cost: Callable[[Tensor], Tensor], start: Tensor, generations: int, name: str) -> Tensor:
        rates = [0.05 * (1 - generation / generations) for generation in range(generations)]
        return evolve(cost, start, track(progress, rates, generations, name), pairs=PAIRS, spread=0.05, seed=3)

    tuned = evolved(
        lambda population: cost(NeuralController.completed(population)),
        NeuralController.around(pids[first], seed=2)[:4],
        (generations + 1) // 2,
        "a PID controller",
    )
    p, i, d, safety = tuned.tolist()
    pids["tuned"] = PIDController(p, i, d, safety=exp(safety))
    weights = evolved(cost, NeuralController.around(pids["tuned"], seed=2), generations, "a controller")
    orbits = Orbits(held_out, seed=2026)  # drawn anew after all settings were chosen
    curves = {name: orbits.curve(pid) for name, pid in track(progress, pids.items(), len(pids), "held out")}
    best = _best({name: curve for name, curve in curves.items() if name != "tuned"}, errors)
    learned = orbits.curve(NeuralController(weights))
    work = learned.evaluations_at(errors)
    against = {"tuned": curves["tuned"], "best": curves[best], "default": orbits.curve(PIDController())}
    ratios = {name: (work - curve.evaluations_at(errors)).exp() for name, curve in against.items()}
    measurements = [
        Measurement("controller: evaluations / the tuned PID's, equal error", _mean(ratios["tuned"]), high=1.0),
        Measurement("controller: the same, largest over the errors", ratios["tuned"].max().item(), high=1.0),
        Measurement("controller: evaluations / the best of 18 PIDs'", _mean(ratios["best"]), high=1.0),
        Measurement("controller: evaluations / the default PID's", _mean(ratios["default"]), high=1.0),
    ]
    record = {
        "tuned": {"p": p, "i": i, "d": d, "safety": exp(safety)},
        "best": best,
        "errors": ERRORS,
        "ratios": {name: ratio.tolist() for name, ratio in ratios.items()},
        "evaluations": {
            name: curve.evaluations_at(errors).exp().tolist() for name, curve in (*curves.items(), ("learned", learned))
        },
        "weights": weights.tolist(),
        "generations": generations,
    }
    looks = {
        "tuned": ("#D55E00", "--", "PID, tuned alike"),
        "best": ("#CC79A7", "-.", f"best of 18: {best}"),
        "default": ("#0072B2", ":", "default: I, safety 0.9"),
    }
    return Outcome(measurements, {"controller": _draw(learned, against, ratios, looks)}, {"controller": record})


def _best(curves: dict[str, Curve], errors: Tensor) -> str:
    return min(curves, key=lambda name: curves[name].evaluations_at(errors).mean().item())


def _mean(ratios: Tensor) -> float:
    return ratios.log().mean().exp().item()


def _draw(
    learned: Curve, against: dict[str, Curve], ratios: dict[str, Tensor], looks: dict[str, tuple[str, str, str]]
) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    work, saved = figure.subplots(1, 2)
    for name, (colour, style, label) in looks.items():
        curve = against[name]
        work.loglog(curve.error.exp(), curve.evaluations.exp(), style, color=colour, label=label, linewidth=2)
        saved.semilogx(ERRORS, ratios[name], style, color=colour, marker="o", linewidth=2)
    work.loglog(learned.error.exp(), learned.evaluations.exp(), color="#009E73", label="learned", linewidth=2)
    work.set(title="On other orbits, by dopri5", xlabel="error", ylabel="evaluations")
    work.legend()
    saved.axhline(1, color="0.5", linestyle=":", linewidth=1)
    saved.set(title="The learned controller against each PID", xlabel="error", ylabel="share of its evaluations")
    return figure
