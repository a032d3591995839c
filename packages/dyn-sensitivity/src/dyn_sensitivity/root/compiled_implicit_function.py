"""The gradient of a root inside of torch.compile, by products with the Jacobian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dyn_numerics import FunctionOperator
from dyn_numerics.linear.pullback import pullback
from dyn_numerics.root.residual import Residual
from dyn_sensitivity.root.implicit_function import Solve
from dyn_sensitivity.root.parametric_residual import ParametricResidual

__all__ = ["compiled_root"]


def compiled_root(residual: Residual, root: Tensor, solve: Solve, equations: ParametricResidual) -> Tensor:
    """A root with its first derivatives in reverse mode, `[batch, N]`; as `implicit_root`.

    A compiled loop cannot hold on to a graph from outside of it, so that every product calls the function again.

    Raises:
        ValueError: If the function depends on a differentiable tensor that is no input of `equations`.
    """
    value = residual(root)
    if equations(root, *(tensor.detach() for tensor in equations.inputs)).requires_grad:
        raise ValueError(
            "f: captures something that requires a gradient, which inside torch.compile an iterative linear_solver knows only "
            "as args and as parameters of the module that f is or is a method of; pass it as args=(...), or use "
            "ImplicitDifferentiation('dense')"
        )
    found: Tensor = _CompiledRoot.apply(equations, solve, root, value, *equations.inputs)  # type: ignore[no-untyped-call]
    return found


class _CompiledRoot(torch.autograd.Function):
    """Maps a root without gradient, the residual there, which is zero, and the inputs to the root."""

    @staticmethod
    def forward(
        ctx: Any, equations: ParametricResidual, solve: Solve, root: Tensor, residual: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.equations, ctx.solve = equations, solve
        ctx.save_for_backward(root, *inputs)
        return root.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        root, *inputs = ctx.saved_tensors
        equations = ctx.equations
        operator = FunctionOperator(pullback(lambda x: equations(x, *inputs), root), like=gradient)
        return None, None, None, -ctx.solve(operator, gradient), *(None for _ in inputs)
