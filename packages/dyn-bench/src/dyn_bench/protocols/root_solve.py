"""Searches for roots and fixed points by this library, and gradients of these, ready to be timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dyn_bench.protocols.compilation import compile_whole
from dyn_bench.protocols.solve import Solve
from dyn_numerics import PerSample, RootSolution, Termination, fixed_point, root_find
from dyn_sensitivity import ImplicitDifferentiation
from dyn_sensitivity import fixed_point as differentiable_fixed_point

__all__ = ["dyn_fixed_point", "dyn_fixed_point_gradient", "dyn_root"]


def dyn_fixed_point(
    h: Callable[..., Tensor],
    z0: Tensor,
    *,
    tolerance: float,
    solver: str = "anderson",
    args: Sequence[Tensor] = (),
    compact: bool = False,
) -> Solve:
    """Prepares the search for fixed points, without gradient.

    Args:
        h: The map `h(z, *args)`.
        z0: Where to start, `[batch, N]`.
        tolerance: Tolerance relative to `h(z)`, of every sample.
        solver: Name of the method.
        args: Further arguments of `h`, which belong to the samples.
        compact: Whether samples that have ended leave the batch.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.root_solve import dyn_fixed_point
        >>> solve = dyn_fixed_point(torch.cos, torch.ones(1, 1), tolerance=1e-5)
        >>> round(solve.values(solve.run()).item(), 4)
        0.7391
    """
    sampled = tuple(PerSample(arg) for arg in args)
    return _solve(partial(fixed_point, h, solver=solver, rtol=tolerance, atol=0.0, args=sampled, compact=compact), z0)


def dyn_fixed_point_gradient(
    h: nn.Module,
    z0: Tensor,
    *,
    tolerance: float,
    loss: Callable[[Tensor], Tensor],
    solver: str = "anderson",
    linear_solver: str | None = None,
    args: Sequence[Tensor] = (),
) -> Solve:
    """Prepares the gradient of a loss of the fixed point by implicit differentiation.

    Args:
        h: The map `h(z, *args)`; its parameters get the gradient, which comes as one vector.
        z0: Where to start, `[batch, N]`.
        tolerance: Tolerance of the fixed point relative to `h(z)`, and of the linear system of its gradient.
        loss: A function of `[batch, N]`.
        solver: Name of the method for the fixed point.
        linear_solver: Name of the method for the linear system; None for the one by default.
        args: Further arguments of `h`.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.root_solve import dyn_fixed_point_gradient
        >>> layer = torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, 0.5), torch.nn.init.constant_(layer.bias, 1.0)
        >>> solve = dyn_fixed_point_gradient(layer, torch.zeros(1, 1), tolerance=1e-5, loss=torch.sum)
        >>> [round(v, 3) for v in solve.values(solve.run()).tolist()]  # of b / (1 - w)
        [4.0, 2.0]
    """
    sensitivity = ImplicitDifferentiation(linear_solver, rtol=tolerance)
    options: dict[str, Any] = {
        "solver": solver,
        "rtol": tolerance,
        "atol": 0.0,
        "args": args,
        "sensitivity": sensitivity,
    }
    parameters = list(h.parameters())

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(differentiable_fixed_point(h, z0, **options).z), parameters)

    return Solve(run=run, values=lambda gradient: torch.cat([part.flatten() for part in gradient]))


def dyn_root(
    g: Callable[..., Tensor],
    z0: Tensor,
    *,
    tolerance: float,
    solver: str = "newton",
    line_search: str | None = None,
    termination: Termination | None = None,
    compiled: bool = False,
) -> Solve:
    """Prepares the search for roots, without gradient.

    Args:
        g: The function `g(z)`.
        z0: Where to start, `[batch, N]`.
        tolerance: Tolerance relative to the residual at the start, of every sample.
        solver: Name of the method.
        line_search: Name of a line search, or None.
        termination: When to end beside that.
        compiled: Whether the search is compiled, or eager.

    Raises:
        UnavailableError: If it is to be compiled and this torch cannot.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.root_solve import dyn_root
        >>> solve = dyn_root(lambda z: z * z - 2, torch.ones(1, 1), tolerance=1e-5)
        >>> round(solve.values(solve.run()).item(), 4)
        1.4142
    """
    options: dict[str, Any] = {"solver": solver, "line_search": line_search, "termination": termination}
    search = partial(root_find, g, rtol=tolerance, atol=0.0, **options)
    return _solve(compile_whole(search) if compiled else search, z0)


def _solve(search: Callable[..., RootSolution], z0: Tensor) -> Solve:
    def run() -> RootSolution:
        with torch.no_grad():
            return search(z0, throw=False)

    def values(solution: RootSolution) -> Tensor:
        z: Tensor = solution.raise_if_failed().z
        return z

    return Solve(run=run, values=values, evaluations=lambda solution: int(solution.stats.n_evals))
