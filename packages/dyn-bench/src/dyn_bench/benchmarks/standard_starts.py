"""What each method solves from the standard starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

import torch
from rich.progress import Progress

from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.peers.scipy import scipy_roots
from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
from dyn_bench.problems.root.nonlinear_system import NonlinearSystem
from dyn_bench.protocols.solve import values_and_evaluations
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_bench.report import rows_as_markdown
from dyn_numerics import root_find
from dyn_numerics.root.by_name import ROOT_STEPPERS

__all__ = ["standard_starts", "starts_as_markdown"]

OTHERS = {"anderson", "fixed_point", "bisection"}
"""Methods for fixed points, and that for brackets."""

Method = Callable[[NonlinearSystem], dict[str, Any]]
"""What says how a method ends from the standard start of a system."""

MOST_UNSOLVED = {"newton, armijo": 0, "levenberg_marquardt": 0}
TOLERANCE = 1e-12


def standard_starts(progress: Progress) -> Outcome:
    """Solves every system of the collection from its standard start by every method, and by MINPACK's, float64.

    A method has solved a system where it ends within 1e-6 of a root; within 1e-3 of one that is singular, where a residual
    of 1e-12 says no more.

    Args:
        progress: Where to show how far it is.

    Returns:
        How many systems each method leaves unsolved; for each system and method whether it is solved, or else whether it
        ended at a published local minimum, the error, steps and evaluations.
    """
    own, peers = _methods()
    systems = MORE_GARBOW_HILLSTROM.values()
    records = {
        system.name: _endings(system, own | peers)
        for system in track(progress, systems, len(systems), "standard starts")
    }
    measurements = []
    for name in own:
        unsolved = sum(not found[name]["solved"] for found in records.values())
        title = f"{len(systems)} standard starts: {name}, systems not solved"
        measurements.append(Measurement(title, unsolved, high=MOST_UNSOLVED.get(name, inf)))
    return Outcome(measurements, {}, {"standard_starts": records})


def starts_as_markdown(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Lays out the record `standard_starts`: steps and evaluations where a system was solved, or else where it ended."""
    return rows_as_markdown(
        "system", {system: {name: _cell(found) for name, found in row.items()} for system, row in records.items()}
    )


def _methods() -> tuple[dict[str, Method], dict[str, Method]]:
    """This library's methods and MINPACK's, by name."""
    own: dict[str, Method] = {
        name: partial(_by_this_library, solver=name) for name in ROOT_STEPPERS if name not in OTHERS
    }
    own["newton, armijo"] = partial(_by_this_library, solver="newton", line_search="armijo")
    return own, {f"SciPy {name}": partial(_by_scipy, method=name) for name in ("hybr", "lm")}


def _endings(system: NonlinearSystem, methods: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """How each method ended, but for one that is not available: nothing is held against it."""
    found = {}
    for name, method in methods.items():
        with suppress(UnavailableError):
            found[name] = method(system)
    return found


def _cell(found: Mapping[str, Any]) -> str:
    if not found["solved"]:
        return "minimum" if found["trapped"] else "–"
    counts = (found["steps"], found["evaluations"])
    return ", ".join(str(count) for count in counts if count is not None)


def _by_this_library(system: NonlinearSystem, **method: Any) -> dict[str, Any]:
    z0 = system.z0.unsqueeze(0)
    solution = root_find(system.function, z0, rtol=TOLERANCE, atol=0.0, throw=False, **method)
    steps, evaluations = int(solution.stats.n_steps), int(solution.stats.n_evals)
    return {**_ending(system, solution.z[0]), "steps": steps, "evaluations": evaluations}


def _by_scipy(system: NonlinearSystem, method: str) -> dict[str, Any]:
    def g(z: Any) -> Any:
        return system.function(torch.from_numpy(z)).numpy()

    z, evaluations = values_and_evaluations(scipy_roots(g, system.z0.unsqueeze(0), tolerance=TOLERANCE, method=method))
    return {**_ending(system, z[0]), "steps": None, "evaluations": evaluations}


def _ending(system: NonlinearSystem, z: torch.Tensor) -> dict[str, Any]:
    error = system.error(z).item()
    solved = error <= (1e-3 if system.singular else 1e-6)
    return {"solved": solved, "trapped": bool(system.is_trapped(z)), "error": error}
