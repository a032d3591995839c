"""Roots of systems of equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dyn_numerics.root.by_name import ROOT_STEPPERS
from dyn_numerics.root.line_search import LineSearch
from dyn_numerics.root.residual import Residual
from dyn_numerics.root.root_solution import RootSolution
from dyn_numerics.root.root_stepper import RootStepper
from dyn_numerics.root.search import search
from dyn_numerics.root.termination import Termination

__all__ = ["root_find"]


def root_find(
    g: Callable[..., Any],
    z0: Any,
    *,
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
    """Finds `z` with `g(z, *args) = 0`, for every sample of a batch by itself.

    A sample has converged when the root mean square of its residual is at most `atol + rtol * |g(z0)|`. It then stands
    still, so that its result does not depend on its batch-mates; one that fails gets a status, and its neighbours do not
    notice. The residual at the start is looked at first: a start that solves the problem costs one evaluation.

    Gradients, where they are wanted, are those of the steps: memory grows with their number. Samples whose residual is not
    finite do not disturb those of their neighbours; one that fails at a singular Jacobian, or whose step overflows, makes
    the gradients of what all samples share NaN. Inside of `torch.compile` the whole search is one program, without
    gradients, and `throw` has no effect: see `RootSolution.raise_if_failed`.

    Args:
        g: `g(z, *args)`, in structure, shapes and dtypes of `z`. No sample may depend on another.
        z0: Where to start: a tensor `[batch, ...]` or a pytree of such, real or complex, float64 to float16 (half precision
            is iterated in float32). One system of N unknowns is `[1, N]`; `[N]` is N equations of one unknown each.
        solver: The method: `"newton"`, `"chord"`, `"newton_krylov"`, `"broyden"`, `"anderson"`, `"fixed_point"`,
            `"levenberg_marquardt"`, `"bisection"`, or a `RootStepper`, such as `Bisection(lower, upper)`.
        rtol: Tolerance relative to the residual at the start, a number or `[batch]`; `sqrt(eps)` of the dtype when None. If
            `atol` and `termination` are None too, the last step has to be small as well, at most `sqrt(eps) * (1 + |z|)`:
            beside the residual of a start far away, one that is small says little.
            From a start where `g` is huge, a search ends early unless it is small.
        atol: Tolerance in the units of `g`, a number or `[batch]`; `sqrt(eps)` of the dtype when None.
        args: Further arguments of `g`; `PerSample` for what leaves with the samples under `compact`.
        max_steps: Greatest number of steps of a sample.
        line_search: `"armijo"` or a `LineSearch`, which shorten steps until the residual falls; None to take them whole.
        termination: When to end beside that: a criterion for steps, stagnation, divergence.
        compact: Whether samples that have ended leave the batch, whenever they are half of it, so that slow ones do not
            pay for all.
        throw: Whether to raise an error when a sample fails, or to return its status.

    Returns:
        The best iterates, with status, residual and statistics; unpacks as `z, stats`.

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        SolverError: If a sample fails and `throw`; the error carries the solution.
        TypeError: If an argument has the wrong type, or `g` returns another structure or dtype.
        ValueError: If an argument is out of its range, as `rtol` below 4 eps, or `g` returns another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import root_find
        >>> target = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
        >>> z, stats = root_find(lambda z, a: z**2 - a, torch.ones(2, 1).double(), args=(target,))
        >>> [round(v, 6) for v in z.squeeze(1).tolist()]
        [1.414214, 1.732051]
    """
    return search(
        g,
        z0,
        name="g",
        residual=Residual,
        named=ROOT_STEPPERS,
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
