"""SciPy: initial value problems and systems of equations, one at a time, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["scipy_roots", "scipy_solve", "scipy_stiff_solve"]


def scipy_solve(
    field: Callable[..., Tensor], x0: Tensor, t: Tensor, *, tolerance: float, method: str = "DOP853"
) -> Solve:
    """Prepares `solve_ivp`; a state at the end comes from the last step, those in between from the dense output.

    Args:
        field: Vector field `f(t, x)`.
        x0: Initial state `[n]`, float64.
        t: Output times `[T]`, float64.
        tolerance: Relative and absolute tolerance.
        method: Name of the method.

    Raises:
        PeerMissingError: If SciPy is not installed.

    References:
        P. Virtanen et al.: SciPy 1.0, Nature Methods 17 (2020), https://scipy.org
    """
    solve_ivp = _import("scipy.integrate").solve_ivp
    between = t.numpy() if len(t) > 2 else None  # its stages for the dense output are not evaluated without

    def slopes(t: float, x: Any) -> Any:
        return field(torch.tensor(t, dtype=torch.float64), torch.from_numpy(x)).numpy()

    def run() -> Any:
        span, options = (t[0].item(), t[-1].item()), {"rtol": tolerance, "atol": tolerance}
        with torch.no_grad():
            return solve_ivp(slopes, span, x0.numpy(), method=method, t_eval=between, **options)

    def values(result: Any) -> Tensor:
        x = torch.from_numpy(result.y.T)
        return x if between is not None else x[[0, -1]]

    return Solve(run=run, values=values, evaluations=lambda result: int(result.nfev))


def scipy_stiff_solve(
    components: Callable[..., Sequence[Any]],
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    floor: float = 1.0,
    args: Tensor | None = None,
    partials: Callable[..., Sequence[Sequence[Any]]] | None = None,
    method: str = "Radau",
) -> Solve:
    """Prepares `solve_ivp` in a loop over samples, by a method for stiff problems, with a field in plain Python.

    Numbers of Python are the fastest that NumPy's small arrays are made of: SciPy is not to wait for its field.

    Args:
        components: The components of the field, of those of the state and the arguments.
        x0: Initial states `[batch, n]`, float64.
        t: Start and end, `[2]`, float64.
        tolerance: Relative tolerance.
        floor: Absolute tolerance over the relative one, in state units.
        args: Further numbers of every sample, `[batch, m]`.
        partials: The Jacobian of the components, row by row; differences take its place if there is none.
        method: Name of the method.

    Returns:
        The solve; what it returns is SciPy's result for every sample. Its evaluations are calls of the field by all of them,
        those for differences included, and one for every Jacobian that was given.

    Raises:
        PeerMissingError: If SciPy is not installed.
    """
    solve_ivp = _import("scipy.integrate").solve_ivp
    span, states = (t[0].item(), t[-1].item()), x0.numpy()
    numbers = [[]] * len(states) if args is None else args.tolist()
    options = {"method": method, "rtol": tolerance, "atol": tolerance * floor}

    def solve(x: Any, numbers: Sequence[float]) -> Any:
        calls = 0

        def slopes(t: float, x: Any) -> Any:
            nonlocal calls
            calls += 1
            return np.array(components(*x.tolist(), *numbers))

        def jacobian(t: float, x: Any) -> Any:
            nonlocal calls
            calls += 1
            return np.array(partials(*x.tolist(), *numbers)) if partials is not None else None

        result = solve_ivp(slopes, span, x, jac=None if partials is None else jacobian, **options)
        result.calls = calls
        return result

    return Solve(
        run=lambda: [solve(*sample) for sample in zip(states, numbers, strict=True)],
        values=lambda results: torch.stack([x0, torch.stack([torch.from_numpy(r.y[:, -1]) for r in results])]),
        evaluations=lambda results: sum(result.calls for result in results),
        counts=lambda results: {
            "steps": max(len(result.t) - 1 for result in results),
            "factorisations": sum(int(result.nlu) for result in results),
            "evaluations without Jacobians": sum(int(result.nfev) for result in results),
        },
    )


def scipy_roots(
    g: Callable[[Any], Any],
    z0: Tensor,
    *,
    tolerance: float,
    method: str = "hybr",
    jac: Callable[[Any], Any] | None = None,
) -> Solve:
    """Prepares `root` in a loop over samples.

    Args:
        g: The function of one sample, of NumPy arrays `[n]`.
        z0: Where to start, `[batch, n]`, float64.
        tolerance: Tolerance, relative to the size of the unknowns for `hybr`.
        method: Name of the method.
        jac: The Jacobian of `g`, `[n, n]`; differences take its place if there is none.

    Returns:
        The solve; its evaluations are those of all samples.

    Raises:
        PeerMissingError: If SciPy is not installed.
    """
    root = _import("scipy.optimize").root

    def run() -> list[Any]:
        return [root(g, z, jac=jac, method=method, tol=tolerance) for z in z0.numpy()]

    return Solve(
        run=run,
        values=lambda results: torch.stack([torch.from_numpy(result.x) for result in results]),
        evaluations=lambda results: sum(int(result.nfev) for result in results),
    )


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise PeerMissingError("scipy") from None
