"""`fixed_point` with a choice of gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

import dyn_numerics
from dyn_numerics import LineSearch, RootSolution, RootStepper, Termination
from dyn_numerics.arguments import extra_arguments
from dyn_numerics.root.residual import FixedPointResidual
from dyn_sensitivity.root.by_name import root_algorithm
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity

__all__ = ["fixed_point"]


def fixed_point(
    h: Callable[..., Any],
    z0: Any,
    *,
    sensitivity: str | RootSensitivity = "implicit",
    solver: str | RootStepper = "anderson",
    rtol: float | Tensor | None = None,
    atol: float | Tensor | None = None,
    args: Sequence[Any] = (),
    max_steps: int = 200,
    line_search: str | LineSearch | None = None,
    termination: Termination | None = None,
    compact: bool = False,
    throw: bool = True,
) -> RootSolution:
    """Finds `z` with `h(z, *args) = z`, for every sample by itself, and says how its gradient is computed.

    Gradients reach the tensors in `args`, parameters, and everything else that `h` depends on, as in `root_find`.

    Args:
        h: `h(z, *args)`, as in `dyn_numerics.fixed_point`.
        z0: Where to start, a tensor `[batch, ...]` or a pytree of such.
        sensitivity: `"implicit"` (`ImplicitDifferentiation`, exact at a fixed point, one linear system), `"unrolled"`
            (`Unrolled`, through the steps), `"phantom"` (`Phantom`, biased, some evaluations), `"jacobian_free"`
            (`JacobianFree`, biased, one evaluation), `"shine"` (`Shine`, biased, Broyden's inverse), or an algorithm with
            settings of its own.
        solver: As in `dyn_numerics.fixed_point`, and so are the arguments that follow.
        rtol: Tolerance relative to `h(z)`.
        atol: Tolerance in the units of `z`.
        args: Further arguments of `h`; those that are not tensors pass through.
        max_steps: Greatest number of steps of a sample.
        line_search: What shortens steps.
        termination: When to end beside that.
        compact: Whether samples that have ended leave the batch.
        throw: Whether to raise an error when a sample fails, or to return its status.

    Returns:
        The best iterates, with status, residual and statistics; unpacks as `z, stats`.

    Raises:
        RuntimeError: As `dyn_numerics.fixed_point`.
        SolverError: As `dyn_numerics.fixed_point`.
        TypeError: As `dyn_numerics.fixed_point`.
        ValueError: As `dyn_numerics.fixed_point`, and if the algorithm cannot give a gradient that is asked for.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import fixed_point
        >>> layer = torch.nn.Linear(8, 8)
        >>> x = torch.randn(4, 8)
        >>> z, stats = fixed_point(lambda z, x: torch.tanh(0.5 * layer(z) + x), torch.zeros(4, 8), args=(x,))
        >>> z.square().sum().backward()
        >>> layer.weight.grad.shape
        torch.Size([8, 8])
    """
    options = {
        "solver": solver,
        "rtol": rtol,
        "atol": atol,
        "max_steps": max_steps,
        "line_search": line_search,
        "termination": termination,
        "compact": compact,
        "throw": throw,
    }
    return root_algorithm(sensitivity).solve(
        RootProblem(dyn_numerics.fixed_point, FixedPointResidual, "h", h, z0, extra_arguments(args), options)
    )
