"""A stretch of a solution, differentiated by a backward solve of the adjoint."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_sensitivity.ode.backward_solve import AdjointProblem, BackwardSolve
from dyn_sensitivity.ode.recalled_field import hooks_set_aside
from dyn_sensitivity.ode.second_derivatives import refuse_second_derivatives

__all__ = ["AdjointFunction", "Stretch"]


class Stretch(NamedTuple):
    """What the forward solve found between two times.

    Attributes:
        x: Leaves of the states at the times.
        dense: Ends of the steps and coefficients of the solution as a function of time; empty if nobody needs it.
    """

    x: tuple[Tensor, ...]
    dense: tuple[Tensor, ...] = ()


class AdjointFunction(torch.autograd.Function):
    """Maps times, the state at the first, args and parameters to the leaves of the states at the times."""

    @staticmethod
    def forward(problem: AdjointProblem, stretch: Stretch, t: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return stretch.x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        problem, stretch, t, *tensors = inputs
        ctx.problem, ctx.n_dense = problem, len(stretch.dense)
        # The constants, to notice when they are written to.
        ctx.save_for_backward(t, *output, *tensors, *stretch.dense, *problem.field.constants)

    @staticmethod
    def backward(ctx: Any, *grad_x: Tensor) -> tuple[Tensor | None, ...]:
        t, *tensors = ctx.saved_tensors
        problem: AdjointProblem = ctx.problem
        n_state, n_inputs = problem.field.n_state, len(ctx.needs_input_grad) - 3
        x, inputs = tensors[:n_state], tensors[n_state : n_state + n_inputs]
        dense = tensors[n_state + n_inputs :][: ctx.n_dense]
        with torch.no_grad(), problem.conditions.restored(), hooks_set_aside(inputs):
            solve = BackwardSolve(problem, t, x, dense, inputs)
            grad_t, grads = solve.gradients(grad_x, bool(ctx.needs_input_grad[2]))
        given = grads if grad_t is None else [grad_t, *grads]
        given = refuse_second_derivatives(problem.name, given, [t, *inputs, *grad_x])
        grad_t, grads = (None, given) if grad_t is None else (given[0], given[1:])
        return None, None, grad_t, *grads
