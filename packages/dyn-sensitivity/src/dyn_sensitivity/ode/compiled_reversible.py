"""Gradients of the accepted steps of a compiled solve that are undone on the way back."""

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

    Of the accepted steps it keeps where they end, and of the states the last alone.

    Args:
        f: Vector field, a module or a method of one if it has parameters.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        options: Everything else that `dyn_numerics.odeint` takes; the solver is a reversible method.

    Raises:
        ValueError: If a gradient is asked for that it cannot give, or field or state jump at stops.
    """
    controller = options["controller"]
    if controller is not None and (controller.jumps or controller.jump is not None):
        raise ValueError(
            f"controller: got {type(controller).__name__} with sensitivity='reversible' inside torch.compile, where steps are not undone "
            f"across a jump of the field or the state; use sensitivity='autograd' with another method, or solve outside of torch.compile"
        )
    method = compiled_steps.method_of(options)
    return compiled_steps.solve(f, x0, t_span, args, options, method, undoes=True)
