"""torchode's dopri5: every sample with a step size of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["torchode_solve"]


def torchode_solve(field: Callable[..., Tensor], x0: Tensor, t: Tensor, *, tolerance: float) -> Solve:
    """Prepares `AutoDiffAdjoint` with an integral controller, without gradient; the arguments are those of `dyn_solve`.

    Raises:
        PeerMissingError: If torchode is not installed.

    References:
        M. Lienen, S. Günnemann: torchode (2022), https://github.com/martenlienen/torchode
    """
    torchode = _import()
    term = torchode.ODETerm(field)
    controller = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
    times = t.to(x0.dtype).expand(len(x0), -1).contiguous()  # [batch, T]
    problem = torchode.InitialValueProblem(y0=x0, t_eval=times)

    def run() -> Any:
        with torch.no_grad():
            return solver.solve(problem)

    return Solve(
        run=run,
        values=lambda solution: solution.ys.transpose(0, 1),
        evaluations=lambda solution: int(solution.stats["n_f_evals"].max()),
    )


def _import() -> Any:
    try:
        import torchode  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("torchode") from None
    return torchode
