"""diffrax's Dopri5 and Kvaerno5, and gradients of the first, compiled by jax."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.protocols.solve import Solve

__all__ = ["diffrax_gradient", "diffrax_solve"]

# jax reads them once, when it first computes.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def diffrax_solve(
    components: Callable[..., Sequence[Any]],
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    floor: float = 1.0,
    args: Tensor | None = None,
    method: Literal["Dopri5", "Kvaerno5"] = "Dopri5",
    stepping: Literal["joint", "per_sample"] = "joint",
) -> Solve:
    """Prepares `diffeqsolve` under `jax.jit`, and under `jax.vmap` where every sample has steps of its own.

    Args:
        components: The components of the field, of those of the state and the arguments; arithmetic alone, so that jax
            understands it.
        x0: Initial states `[batch, n]`, float32 or float64, which everything is computed in.
        t: Output times `[T]`.
        tolerance: Relative tolerance.
        floor: Absolute tolerance over the relative one, in state units.
        args: Further numbers of every sample, `[batch, m]`.
        method: Name of the method. Steps of `Kvaerno5`, which is for stiff problems, are controlled as diffrax's
            documentation advises for these, with a share of the error before.
        stepping: One step size for the batch, or one for each sample.

    Returns:
        The solve; evaluations are known of `Dopri5` alone.

    Raises:
        PeerMissingError: If diffrax or jax is not installed.

    References:
        P. Kidger: On Neural Differential Equations (2021), https://github.com/patrick-kidger/diffrax
    """
    diffrax, jax = _import()
    coefficients = {"pcoeff": 0.3, "icoeff": 0.4} if method == "Kvaerno5" else {}
    numbers = torch.empty(len(x0), 0) if args is None else args

    def field(t: Any, y: Any, args: Any) -> Any:
        scalars = [array[..., i] for array in (y, args) for i in range(array.shape[-1])]
        return jax.numpy.stack(jax.numpy.broadcast_arrays(*components(*scalars)), axis=-1)

    def solve(y0: Any, args: Any, times: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            getattr(diffrax, method)(),
            times[0],
            times[-1],
            None,
            y0,
            args,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * floor, **coefficients),
            max_steps=None,
        )
        return solution.ys, solution.stats["num_steps"]

    call = jax.jit(solve if stepping == "joint" else jax.vmap(solve, in_axes=(0, 0, None)))
    double = x0.dtype == torch.float64
    with jax.enable_x64(double):
        start, given, times = (jax.numpy.asarray(array.to(x0.dtype).numpy()) for array in (x0, numbers, t))

    def run() -> Any:
        with jax.enable_x64(double):
            return jax.block_until_ready(call(start, given, times))

    def values(result: Any) -> Tensor:
        x = torch.from_numpy(np.array(result[0]))
        return x if stepping == "joint" else x.transpose(0, 1)

    def evaluations(result: Any) -> int:
        return 6 * int(np.asarray(result[1]).max()) + 2  # it counts steps

    return Solve(run, values, evaluations if method == "Dopri5" else None)


def diffrax_gradient(
    field: Perceptron,
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    loss: Callable[[Any], Any],
    adjoint: Literal["checkpoint", "backsolve"] = "checkpoint",
) -> Solve:
    """Prepares the gradient of a loss of the last states under `jax.jit`, all of it one program.

    Args:
        field: The network, whose weights get the gradient.
        x0: Initial states `[batch, n]`, float32 or float64.
        t: Output times `[T]`; only the first and the last count.
        tolerance: Relative and absolute tolerance.
        loss: A function of `[batch, n]`, in arithmetic that jax understands.
        adjoint: `RecursiveCheckpointAdjoint`, or `BacksolveAdjoint` whose error leaves the parameters out.

    Raises:
        PeerMissingError: If diffrax or jax is not installed.

    References:
        P. Kidger: On Neural Differential Equations (2021), https://github.com/patrick-kidger/diffrax
    """
    diffrax, jax = _import()
    options = {"rtol": tolerance, "atol": tolerance}
    seminorm = diffrax.PIDController(norm=diffrax.adjoint_rms_seminorm, **options)
    method = {
        "checkpoint": diffrax.RecursiveCheckpointAdjoint(),
        "backsolve": diffrax.BacksolveAdjoint(stepsize_controller=seminorm),
    }[adjoint]

    def slope(t: Any, y: Any, layers: Any) -> Any:
        *hidden, (weight, bias) = layers
        for inner, shift in hidden:
            y = jax.numpy.tanh(y @ inner.T + shift)
        return y @ weight.T + bias

    def value(layers: Any, y0: Any, times: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            y0,
            layers,
            stepsize_controller=diffrax.PIDController(**options),
            adjoint=method,
        )
        return loss(solution.ys[-1])

    call = jax.jit(jax.grad(value))
    linear = [layer for layer in field.net if isinstance(layer, nn.Linear)]
    double = x0.dtype == torch.float64
    with jax.enable_x64(double):
        start, times = (jax.numpy.asarray(array.to(x0.dtype).numpy()) for array in (x0, t))
        given = [(layer.weight.detach(), layer.bias.detach()) for layer in linear]
        layers = [tuple(jax.numpy.asarray(array.numpy()) for array in layer) for layer in given]

    def run() -> Any:
        with jax.enable_x64(double):
            return jax.block_until_ready(call(layers, start, times))

    def values(gradient: Any) -> Tensor:
        return torch.cat([torch.from_numpy(np.array(part)).flatten() for layer in gradient for part in layer])

    return Solve(run, values)


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
