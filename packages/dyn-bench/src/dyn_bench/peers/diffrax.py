"""diffrax's Dopri5, compiled by jax."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.protocols.solve import Solve

__all__ = ["diffrax_solve"]

# jax reads them once, when it first computes.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def diffrax_solve(
    components: Callable[..., Sequence[Any]],
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    stepping: Literal["joint", "per_sample"] = "joint",
) -> Solve:
    """Prepares `diffeqsolve` under `jax.jit`, and under `jax.vmap` where every sample has steps of its own; float32.

    Args:
        components: The components of the field, of those of the state; arithmetic alone, so that jax understands it.
        x0: Initial states `[batch, n]`.
        t: Output times `[T]`.
        tolerance: Relative and absolute tolerance.
        stepping: One step size for the batch, or one for each sample.

    Raises:
        PeerMissingError: If diffrax or jax is not installed.

    References:
        P. Kidger: On Neural Differential Equations (2021), https://github.com/patrick-kidger/diffrax
    """
    diffrax, jax = _import()

    def field(t: Any, y: Any, args: Any) -> Any:
        return jax.numpy.stack(components(*(y[..., i] for i in range(y.shape[-1]))), axis=-1)

    times = jax.numpy.asarray(t.numpy(), dtype=jax.numpy.float32)
    start = jax.numpy.asarray(x0.numpy(), dtype=jax.numpy.float32)

    def solve(y0: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            y0,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=None,
        )
        return solution.ys, solution.stats["num_steps"]

    call = jax.jit(solve if stepping == "joint" else jax.vmap(solve))

    def values(result: Any) -> Tensor:
        x = torch.from_numpy(np.array(result[0]))
        return x if stepping == "joint" else x.transpose(0, 1)

    return Solve(
        run=lambda: jax.block_until_ready(call(start)),
        values=values,
        evaluations=lambda result: 6 * int(result[1].max()) + 2,  # it counts steps
    )


def _import() -> tuple[Any, Any]:
    flags = os.environ.get("XLA_FLAGS", "")
    if ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_THREAD}".strip()
    try:
        import diffrax  # noqa: PLC0415
        import jax  # noqa: PLC0415
    except ImportError:
        raise PeerMissingError("diffrax") from None
    return diffrax, jax
