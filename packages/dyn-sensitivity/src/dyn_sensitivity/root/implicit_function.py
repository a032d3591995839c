"""The derivatives of a root, of every order: those of the implicit function theorem.

A root `x` of `r(x, inputs) = 0` moves by `dx = -J^-1 dr`, where `dr` is how the residual changes at a fixed `x`. A gradient `w`
of it so becomes the gradient `-u` of the residual, with `J^H u = w`. That is an equation of the same kind, whose root is `u` and
whose inputs are `w`, `x` and the inputs: it gets its derivatives in the same way, and they get theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp

from dyn_numerics import FunctionOperator, LinearOperator
from dyn_numerics.autocast import without_autocast
from dyn_numerics.linear.pullback import pullback
from dyn_numerics.root.residual import Residual
from dyn_sensitivity.captured_tensors import outermost_modules, reaches_others, unreached
from dyn_sensitivity.root.parametric_residual import ParametricResidual
from dyn_sensitivity.root.unused_inputs import with_zeros

__all__ = ["implicit_root"]

Equations = Callable[..., Tensor]
"""A residual `r(x, *inputs)`, `[batch, N]`, of an iterate `[batch, N]` and tensors of any shape."""

Solve = Callable[[LinearOperator, Tensor], Tensor]
"""Solves `A x = b` for one right-hand side `[batch, N]`, without gradient."""


def implicit_root(f: Callable[..., Any], residual: Residual, root: Tensor, solve: Solve) -> Tensor:
    """A root with its derivatives, `[batch, N]`.

    The first gradient goes through the graph of one evaluation, and so to whatever the residual depends on. One that is to
    be differentiated again goes to the tensors in args and the parameters of the modules that `f` holds, and evaluates it
    again. Of these inputs, those that the residual does not depend on have a gradient of zero.

    Args:
        f: The user's function.
        residual: The residual of flat iterates; holomorphic if complex.
        root: The root, without gradient, `[batch, N]`.
        solve: What solves the linear systems of its derivatives.

    Returns:
        The root; without gradient where there are no inputs and the residual has none.

    References:
        S. G. Krantz, H. R. Parks: The Implicit Function Theorem, Birkhäuser 2003. S. Bai, J. Z. Kolter, V. Koltun: Deep
        Equilibrium Models, NeurIPS 2019, theorem 1.
    """
    here = root.detach().requires_grad_()
    with torch.enable_grad():
        value = residual(here)
    equations = ParametricResidual(residual, outermost_modules(f))
    unused = unreached([value], equations.inputs)
    if not reaches_others([value], known=[here]):
        return with_zeros(root, unused)

    def product(u: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(value, here, u, retain_graph=True, allow_unused=True, materialize_grads=True)
        return found

    evaluation = _Evaluation(product, lambda x, inputs: equations.verify(f, x, inputs, value.detach()))
    found: Tensor = _Root.apply(equations, solve, evaluation, root, value, *equations.inputs)  # type: ignore[no-untyped-call]
    return with_zeros(found, unused)


class _Evaluation(NamedTuple):
    """What is known of an evaluation of a residual at its root.

    Attributes:
        product: `J^H u`, from its graph.
        verify: Refuses equations that are not those of the evaluation.
    """

    product: Callable[[Tensor], Tensor]
    verify: Callable[[Tensor, Sequence[Tensor]], None]


class _Root(torch.autograd.Function):
    """Maps a root without gradient, the residual there, which is zero, and the inputs to the root.

    Its gradient goes to the residual, or, if that is None or the gradient is to be differentiated again, to the inputs.
    """

    @staticmethod
    def forward(
        equations: Equations,
        solve: Solve,
        evaluation: _Evaluation | None,
        root: Tensor,
        residual: Tensor | None,
        *inputs: Tensor,
    ) -> Tensor:
        return root.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.equations, ctx.solve, ctx.evaluation, *_ = inputs
        ctx.save_for_backward(output, *inputs[5:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        root, *inputs = ctx.saved_tensors
        with without_autocast(root.device.type):
            if ctx.evaluation is not None:
                if not torch.is_grad_enabled():
                    u = ctx.solve(FunctionOperator(ctx.evaluation.product, like=gradient), gradient)
                    return None, None, None, None, -u, *(None for _ in inputs)
                ctx.evaluation.verify(root, inputs)
            u = _solve_adjoint(ctx.equations, ctx.solve, gradient, root, inputs)
            shares = vjp(lambda *inputs: ctx.equations(root, *inputs), *inputs)[1](-u)
        return None, None, None, None, None, *shares


def _solve_adjoint(equations: Equations, solve: Solve, w: Tensor, root: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The solution of `J^H u = w`, `[batch, N]`, with its derivatives where gradients are enabled."""
    with torch.no_grad():
        u = solve(FunctionOperator(pullback(lambda x: equations(x, *inputs), root), like=w), w)

    def adjoint(u: Tensor, w: Tensor, root: Tensor, *inputs: Tensor) -> Tensor:
        return pullback(lambda x: equations(x, *inputs), root)(u) - w

    solution: Tensor = _Root.apply(adjoint, solve, None, u, None, w, root, *inputs)  # type: ignore[no-untyped-call]
    return solution
