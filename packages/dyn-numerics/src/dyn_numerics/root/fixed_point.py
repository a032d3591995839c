"""Fixed points of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dyn_numerics.root.by_name import FIXED_POINT_STEPPERS
from dyn_numerics.root.line_search import LineSearch
from dyn_numerics.root.residual import FixedPointResidual
from dyn_numerics.root.root_solution import RootSolution
from dyn_numerics.root.root_stepper import RootStepper
from dyn_numerics.root.search import search
from dyn_numerics.root.termination import Termination

__all__ = ["fixed_point"]


def fixed_point(
    h: Callable[..., Any],
    z0: Any,
    *,
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
    """Finds `z` with `h(z, *args) = z`, for every sample of a batch by itself.

    As `root_find` of the residual `h(z) - z`, which is compared with `h(z)`: a sample has converged when its root mean
    square is at most `atol + rtol * |h(z)|`.

    Args:
        h: `h(z, *args)`, in structure, shapes and dtypes of `z`. No sample may depend on another.
        z0: Where to start, as in `root_find`.
        solver: The method, as in `root_find`; `"broyden"` starts with the Jacobian of a map that is constant.
        rtol: Tolerance relative to `h(z)`, a number or `[batch]`; `sqrt(eps)` of the dtype when None.
        atol: Tolerance in the units of `z`, a number or `[batch]`; `sqrt(eps)` of the dtype when None.
        args: Further arguments of `h`; as in `root_find`.
        max_steps: Greatest number of steps of a sample.
        line_search: What shortens steps, as in `root_find`.
        termination: When to end beside that, as in `root_find`.
        compact: Whether samples that have ended leave the batch, as in `root_find`.
        throw: Whether to raise an error when a sample fails, or to return its status.

    Returns:
        The best iterates, with status, residual and statistics; unpacks as `z, stats`.

    Raises:
        RuntimeError: As `root_find`.
        SolverError: As `root_find`.
        TypeError: As `root_find`.
        ValueError: As `root_find`.

    Example:
        >>> import torch
        >>> from dyn_numerics import fixed_point
        >>> layer = torch.nn.Linear(8, 8)
        >>> with torch.no_grad():
        ...     sol = fixed_point(lambda z, x: torch.tanh(0.5 * layer(z) + x), torch.zeros(4, 8), args=(torch.randn(4, 8),))
        >>> sol.status[0].name
        'CONVERGED'
    """
    return search(
        h,
        z0,
        name="h",
        residual=FixedPointResidual,
        named=FIXED_POINT_STEPPERS,
        solver=solver,
        rtol=rtol,
        atol=atol,
        args=args,
        max_steps=max_steps,
        line_search=line_search,
        termination=termination,
        compact=compact,
        throw=throw,
    )
