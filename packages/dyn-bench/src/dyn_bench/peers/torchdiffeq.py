"""torchdiffeq: one step size for the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["torchdiffeq_gradient", "torchdiffeq_solve"]


def torchdiffeq_solve(
    field: Callable[..., Tensor], x0: Tensor, t: Tensor, *, tolerance: float, method: str = "dopri5"
) -> Solve:
    """Prepares `odeint`, without gradient; the arguments are those of `dyn_solve`, and the name of a method there.

    Raises:
        PeerMissingError: If torchdiffeq is not installed.

    References:
        R. T. Q. Chen: torchdiffeq (2018), https://github.com/rtqichen/torchdiffeq
    """
    torchdiffeq = _import()
    times = t.to(x0.dtype)

    def solve(field: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            x: Tensor = torchdiffeq.odeint(field, x0, times, rtol=tolerance, atol=tolerance, method=method)
        return x

    def evaluations(result: Tensor) -> int:
        calls = 0

        def counted(t: Tensor, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return field(t, x)

        solve(counted)
        return calls

    return Solve(run=lambda: solve(field), values=lambda x: x, evaluations=evaluations)


def torchdiffeq_gradient(
    field: nn.Module,
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    loss: Callable[[Tensor], Tensor],
    adjoint: bool = True,
) -> Solve:
    """Prepares the gradient of a loss of the last states by `odeint_adjoint`, or through the steps of `odeint`.

    Args:
        field: Vector field `f(t, x)`; its parameters get the gradient.
        x0: Initial states `[batch, n]`.
        t: Output times `[T]`.
        tolerance: Relative and absolute tolerance.
        loss: A function of `[batch, n]`.
        adjoint: Which of the two.

    Raises:
        PeerMissingError: If torchdiffeq is not installed.
    """
    torchdiffeq = _import()
    times, parameters = t.to(x0.dtype), list(field.parameters())
    odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def run() -> tuple[Tensor, ...]:
        x = odeint(field, x0, times, rtol=tolerance, atol=tolerance, method="dopri5")
        return torch.autograd.grad(loss(x[-1]), parameters)

    return Solve(run=run, values=lambda gradient: torch.cat([part.flatten() for part in gradient]))


def _import() -> Any:
    try:
        import torchdiffeq  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("torchdiffeq") from None
    return torchdiffeq
