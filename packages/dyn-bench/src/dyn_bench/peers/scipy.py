"""SciPy: Hairer's DOP853 and others on one state, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["scipy_solve"]


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
    solve_ivp = _import()
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


def _import() -> Any:
    try:
        from scipy.integrate import solve_ivp  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("scipy") from None
    return solve_ivp
