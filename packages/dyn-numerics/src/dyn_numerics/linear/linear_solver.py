"""The interface of a method for systems of linear equations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dyn_numerics.autocast import without_autocast
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.linear.operator import LinearOperator

__all__ = ["LinearSolution", "LinearSolver"]

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class LinearSolution(NamedTuple):
    """What a linear solver found. A sample that neither converged nor broke down ran out of steps.

    Attributes:
        x: Solution, `[*lead, N]`; of a sample that did not converge the best that was found, or NaN.
        residual: 2-norm of `b - A x`, `[*lead]`, in the units of `b`.
        converged: Whether `x` solves the system as well as was asked for, `[*lead]`.
        breakdown: Whether the method could not go on, `[*lead]`: the matrix is singular or not of the kind that the method is
            for, something is not finite, or rounding permits no better.
        n_steps: Steps that the sample took, `[*lead]`, int64.
        n_products: Calls of the operator, each for all samples; an int, or inside of `torch.compile` int64 `[]`.
    """

    x: Tensor
    residual: Tensor
    converged: Tensor
    breakdown: Tensor
    n_steps: Tensor
    n_products: int | Tensor


class LinearSolver(nn.Module, ABC):
    """A method for `A x = b`, every sample a system of its own. Subclass it to plug in your own.

    Solvers are not differentiated: what passes through their steps, backward or forward, would be the derivative of an
    unfinished iteration. Differentiate the solution instead: a gradient is one more solve with the adjoint, a tangent one
    with the operator itself.

    Args:
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.

    Raises:
        TypeError: If `rtol` is not a number.
        ValueError: If `rtol` is not positive and finite.
    """

    rtol: float

    def __init__(self, rtol: float = 1e-5) -> None:
        super().__init__()
        if isinstance(rtol, bool) or not isinstance(rtol, Real):
            raise TypeError(f"rtol: got a {type(rtol).__name__}, expected a number; try 1e-5")
        _check_positive(rtol)
        self.rtol = float(rtol)

    def extra_repr(self) -> str:
        return f"rtol={self.rtol:g}"

    def solve(
        self, operator: LinearOperator, b: Tensor, x0: Tensor | None = None, *, rtol: float | Tensor | None = None
    ) -> LinearSolution:
        """Solves `A x = b`.

        Args:
            operator: The matrix `A`.
            b: Right-hand side, `[*lead, N]`, in the operator's dtype.
            x0: Where to start, `[*lead, N]`; at zero when None.
            rtol: Takes the place of the solver's own: a number, or a real tensor that broadcasts against `[*lead]`.

        Raises:
            TypeError: If an argument has the wrong type, or its dtype is none of float32, float64, complex64 and complex128.
            ValueError: If shapes or dtypes do not fit, if `rtol` is a number below 4 eps, or if the solution would carry a
                gradient.
        """
        if not isinstance(operator, LinearOperator):
            raise TypeError(
                f"operator: got a {type(operator).__name__}, expected a LinearOperator; try MatrixOperator(matrix) "
                f"or FunctionOperator(function, like=b)"
            )
        if operator.dtype not in DTYPES:
            raise TypeError(
                f"operator: got dtype {operator.dtype}, expected float32, float64, complex64 or complex128; "
                f"try b.float()"
            )
        for name, vector in (("b", b), ("x0", x0)):
            if vector is not None:
                _check_vector(name, vector, operator)
        tolerance = _tolerance(self.rtol if rtol is None else rtol, b)
        with without_autocast(b.device.type):
            found = self.run(operator, b, x0, tolerance)
        if found.x.requires_grad:
            raise ValueError(
                "solve: got a b, an x0 or an operator that requires grad, expected none, since a solver's steps are not "
                "differentiated; try torch.no_grad(), and the adjoint of the operator for the gradient"
            )
        return found

    @abstractmethod
    def run(self, operator: LinearOperator, b: Tensor, x0: Tensor | None, rtol: Tensor) -> LinearSolution:
        """Solves what `solve` has checked.

        Args:
            operator: The matrix `A`.
            b: Right-hand side, `[*lead, N]`.
            x0: Where to start, `[*lead, N]`; at zero when None.
            rtol: `[*lead]` in the real dtype of `b`.
        """


def _check_positive(rtol: float) -> None:
    if not 0 < rtol < math.inf:
        raise ValueError(f"rtol: got {rtol}, expected a positive and finite number; try 1e-5")


def _check_vector(name: str, vector: Tensor, operator: LinearOperator) -> None:
    if not isinstance(vector, Tensor):
        raise TypeError(f"{name}: got a {type(vector).__name__}, expected a tensor")
    expected = [*operator.lead, operator.size]
    if list(vector.shape) != expected:
        raise ValueError(f"{name}: got shape {list(vector.shape)}, expected {expected}, as the operator has it")
    if vector.dtype != operator.dtype:
        raise ValueError(f"{name}: got dtype {vector.dtype}, expected {operator.dtype}, as the operator has it")


def _tolerance(rtol: float | Tensor, b: Tensor) -> Tensor:
    lead = b.shape[:-1]
    eps = torch.finfo(b.dtype).eps
    if isinstance(rtol, Tensor):
        if not rtol.is_floating_point():
            raise TypeError(f"rtol: got dtype {rtol.dtype}, expected a floating dtype")
        if rtol.dim() > len(lead) or any(
            n not in (1, m) for n, m in zip(reversed(rtol.shape), reversed(lead), strict=False)
        ):
            raise ValueError(f"rtol: got shape {list(rtol.shape)}, expected one that broadcasts against {list(lead)}")
    else:
        _check_positive(rtol)
        if rtol < 4 * eps:
            raise ValueError(
                f"rtol: got {rtol:.3g}, expected at least 4 eps = {4 * eps:.3g} for {b.dtype}: rounding permits no less"
            )
    return torch.as_tensor(rtol, dtype=real_dtype(b.dtype), device=b.device).expand(lead)
