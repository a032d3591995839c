"""torchdeq: fixed points of deep equilibrium models, one iteration for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["torchdeq_fixed_point"]


def torchdeq_fixed_point(
    h: Callable[..., Tensor],
    z0: Tensor,
    *,
    tolerance: float,
    solver: Literal["anderson", "broyden"] = "anderson",
    args: Sequence[Tensor] = (),
    max_iter: int = 50,
) -> Solve:
    """Prepares `anderson_solver` or `broyden_solver`, without gradient, with its own defaults beside the limit.

    The iteration ends once the slowest sample has `|h(z) - z| < tolerance |h(z)|`, or at the limit; nobody hears which.
    What is returned has the smallest residual of each sample: the iterate from `broyden_solver`, its image under `h` from
    `anderson_solver`.

    Args:
        h: The map `h(z, *args)`.
        z0: Where to start, `[batch, N]`.
        tolerance: Tolerance relative to `h(z)`, of every sample.
        solver: Name of the method.
        args: Further arguments of `h`.
        max_iter: Limit of the iterations, for which `broyden_solver` reserves its memory.

    Raises:
        PeerMissingError: If torchdeq is not installed.

    References:
        Z. Geng, J. Z. Kolter: TorchDEQ: a library for deep equilibrium models (2023),
        https://github.com/locuslab/torchdeq
    """
    solve = _import()[solver]

    def run(h: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            z: Tensor = solve(lambda z: h(z, *args), z0, max_iter=max_iter, tol=tolerance, stop_mode="rel")[0]
        return z

    def evaluations(result: Tensor) -> int:
        calls = 0

        def counted(z: Tensor, *args: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return h(z, *args)

        run(counted)
        return calls

    return Solve(run=lambda: run(h), values=lambda z: z, evaluations=evaluations)


def _import() -> dict[str, Any]:
    try:
        from torchdeq.solver.anderson import anderson_solver  # noqa: PLC0415
        from torchdeq.solver.broyden import broyden_solver  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("torchdeq") from None
    return {"anderson": anderson_solver, "broyden": broyden_solver}
