"""Gradients through the accepted steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

import dyn_numerics
from dyn_numerics import Solution
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.ode.arguments import refuse_compiled
from dyn_sensitivity.ode import compiled_autograd
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm

__all__ = ["Autograd"]


class Autograd(SensitivityAlgorithm):
    """Backpropagates through the accepted steps (discretise, then optimise).

    The gradient is *exact*: that of the computed numbers with the accepted step sizes held fixed. It reaches everything
    that PyTorch can see, trainable solvers and captured tensors included, and can be differentiated again. Memory grows
    with the number of accepted steps.

    Inside `torch.compile` the accepted steps are written down, with the state where each starts, and computed again on the
    way back: memory does not grow with the number of outputs, and there is a first-order gradient alone.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> x0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity="autograd", rtol=1e-9, atol=1e-9).x[-1].backward()
        >>> round(x0.grad.item(), 6)
        0.367879
    """

    exact: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "Autograd()"

    def solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        *,
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        **options: Any,
    ) -> Solution:
        if torch.compiler.is_compiling() and torch.is_grad_enabled():
            refuse_compiled(**{name: options[name] for name in ("save", "events", "compact", "progress", "callbacks")})
            return with_constant_numbers(lambda: compiled_autograd.solve(f, x0, t_span, args, options))
        return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
