"""torchdeq: fixed points of deep equilibrium models and their gradients, one iteration for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["torchdeq_fixed_point", "torchdeq_gradient"]


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
    solve = _solvers()[solver]

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


def torchdeq_gradient(
    h: nn.Module,
    z0: Tensor,
    *,
    tolerance: float,
    loss: Callable[[Tensor], Tensor],
    solver: Literal["anderson", "broyden", "fixed_point_iter"] = "anderson",
    args: Sequence[Tensor] = (),
    max_iter: int = 50,
) -> Solve:
    """Prepares the gradient of a loss of the fixed point by torchdeq's implicit differentiation.

    Both of its iterations, for the fixed point and for the gradient's linear system, are of one method, have the same limit,
    and end once the slowest sample is within the tolerance, or at the limit.

    Args:
        h: The map `h(z, *args)`; its parameters get the gradient, which comes as one vector.
        z0: Where to start, `[batch, N]`.
        tolerance: Tolerance relative to the iterate, of every sample.
        loss: A function of `[batch, N]`.
        solver: Name of the method.
        args: Further arguments of `h`.
        max_iter: Limit of the iterations.

    Raises:
        PeerMissingError: If torchdeq is not installed.
    """
    try:
        from torchdeq import get_deq  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("torchdeq") from None
    limits = {f"{way}_{name}": value for way in "fb" for name, value in (("tol", tolerance), ("max_iter", max_iter))}
    layer = get_deq(ift=True, f_solver=solver, b_solver=solver, f_stop_mode="rel", b_stop_mode="rel", **limits)
    layer.train()
    parameters = list(h.parameters())

    def run() -> tuple[Tensor, ...]:
        trajectory, _ = layer(lambda z: h(z, *args), z0)
        return torch.autograd.grad(loss(trajectory[-1]), parameters)

    return Solve(run=run, values=lambda gradient: torch.cat([part.flatten() for part in gradient]))


def _solvers() -> dict[str, Any]:
    try:
        from torchdeq.solver.anderson import anderson_solver  # noqa: PLC0415
        from torchdeq.solver.broyden import broyden_solver  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("torchdeq") from None
    return {"anderson": anderson_solver, "broyden": broyden_solver}
