"""Gradients through the accepted steps of a compiled solve, whose states are written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dyn_numerics import Solution
from dyn_sensitivity.ode import compiled_steps

__all__ = ["solve"]


def solve(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Solution:
    """Solves inside of torch.compile, with first-order gradients to `x0`, tensors in args and the parameters of `f`.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes.

    Raises:
        ValueError: If a gradient is asked for that it cannot give.
    """
    method = compiled_steps.method_of(options)
    if not method.one_step:
        raise ValueError(
            f"solver: got {method}, whose steps rest on those before, which a compiled gradient through the steps does not "
            f"record; try sensitivity='reversible' with a reversible method, 'adjoint' with others, or solve outside of "
            f"torch.compile"
        )
    if method.loops:
        raise ValueError(
            f"solver: got {method} inside torch.compile, whose steps are loops that a compiled solve has no gradients through; "
            f"use 'rodas5p', which has them, solve under torch.no_grad(), or outside of torch.compile"
        )
    return compiled_steps.solve(f, x0, t_span, args, options, method, undoes=False)
