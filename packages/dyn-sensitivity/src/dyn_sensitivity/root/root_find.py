"""`root_find` with a choice of gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

import dyn_numerics
from dyn_numerics import LineSearch, RootSolution, RootStepper, Termination
from dyn_numerics.arguments import extra_arguments
from dyn_numerics.root.residual import Residual
from dyn_sensitivity.root.by_name import root_algorithm
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity

__all__ = ["root_find"]


def root_find(
    g: Callable[..., Any],
    z0: Any,
    *,
    sensitivity: str | RootSensitivity = "implicit",
    solver: str | RootStepper = "broyden",
    rtol: float | Tensor | None = None,
    atol: float | Tensor | None = None,
    args: Sequence[Any] = (),
    max_steps: int = 200,
    line_search: str | LineSearch | None = None,
    termination: Termination | None = None,
    compact: bool = False,
    throw: bool = True,
) -> RootSolution:
    """Finds `z` with `g(z, *args) = 0`, for every sample by itself, and says how its gradient is computed.

    Gradients reach the tensors in `args`, parameters, and everything else that `g` depends on, declared nowhere. Frozen
    parameters get nothing; unused ones, and `args`, get zeros under `"implicit"`, and nothing under the others, as anywhere
    in PyTorch. Inside of `torch.compile(fullgraph=True)` (torch 2.13 or newer)
    there are first-order gradients in reverse mode; see the algorithms.

    Args:
        g: `g(z, *args)`, as in `dyn_numerics.root_find`.
        z0: Where to start, a tensor `[batch, ...]` or a pytree of such.
        sensitivity: `"implicit"` (`ImplicitDifferentiation`, exact at a root, one linear system), `"unrolled"` (`Unrolled`,
            through the steps), `"shine"` (`Shine`, biased, Broyden's inverse), or an algorithm with settings of its own.
        solver: As in `dyn_numerics.root_find`, and so are the arguments that follow.
        rtol: Tolerance relative to the residual at the start.
        atol: Tolerance in the units of `g`.
        args: Further arguments of `g`; those that are not tensors pass through.
        max_steps: Greatest number of steps of a sample.
        line_search: What shortens steps.
        termination: When to end beside that.
        compact: Whether samples that have ended leave the batch.
        throw: Whether to raise an error when a sample fails, or to return its status.

    Returns:
        The best iterates, with status, residual and statistics; unpacks as `z, stats`.

    Raises:
        RuntimeError: As `dyn_numerics.root_find`.
        SolverError: As `dyn_numerics.root_find`.
        TypeError: As `dyn_numerics.root_find`.
        ValueError: As `dyn_numerics.root_find`, and if the algorithm cannot give a gradient that is asked for.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import root_find
        >>> a = torch.tensor([[2.0], [8.0]], dtype=torch.float64, requires_grad=True)
        >>> z, stats = root_find(lambda z, a: z**2 - a, torch.ones(2, 1).double(), args=(a,), solver="newton")
        >>> z.sum().backward()
        >>> [round(v, 4) for v in a.grad.flatten().tolist()]  # 1 / (2 z)
        [0.3536, 0.1768]
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
        RootProblem(dyn_numerics.root_find, Residual, "g", g, z0, extra_arguments(args), options)
    )
