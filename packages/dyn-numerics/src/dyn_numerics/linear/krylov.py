"""What iterative linear solvers share: cycles that improve a solution until its residual is small."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.linear_solver import LinearSolution, LinearSolver
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import count_from_zero, repeat
from dyn_numerics.norms import norm_at_any_scale

__all__ = ["Correction", "KrylovSolver", "dot"]


class Correction(NamedTuple):
    """What a cycle found.

    Attributes:
        d: What to add to the solution, `[*lead, N]`.
        n_steps: Steps taken, `[*lead]`, int64.
        n_products: Calls of the operator, as in `LinearSolution`.
    """

    d: Tensor
    n_steps: Tensor
    n_products: int | Tensor


class KrylovSolver(LinearSolver):
    """An iterative method, repeated from the residual of what it found until that is small enough.

    A method follows its residual by a recurrence, which rounding separates from the truth. Here every cycle of steps ends
    with one product more, for the true residual: it alone decides whether a sample has converged. A cycle that does not
    lower it is undone and is the sample's last, since another would do the same. Samples that have ended stay as they are.

    A right-hand side of zeros is solved by zeros, without a product unless there is an `x0`.

    Args:
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.
        max_steps: Steps that a sample may take over all cycles; 10 N when None.
        preconditioner: Returns what approximately solves `A z = v`, for vectors `v` `[*lead, N]`, linearly and each sample
            by itself; a function, a module or a `LinearOperator`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `rtol` or `max_steps` is not positive.
    """

    def __init__(
        self,
        rtol: float = 1e-5,
        max_steps: int | None = None,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(rtol)
        if max_steps is not None:
            check_count("max_steps", max_steps)
        if preconditioner is not None and not callable(preconditioner):
            raise TypeError(
                f"preconditioner: got a {type(preconditioner).__name__}, expected a function of vectors [*lead, N]; "
                f"try MatrixOperator(inverse)"
            )
        self.max_steps = max_steps
        self.preconditioner = preconditioner

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.max_steps is None else f", max_steps={self.max_steps}")

    def run(self, operator: LinearOperator, b: Tensor, x0: Tensor | None, rtol: Tensor) -> LinearSolution:
        # Solved for a right-hand side of length one, whose squares are numbers at any scale of b.
        scale = norm_at_any_scale(b)
        scale = torch.where(torch.isfinite(scale) & (scale > 0), scale, 1)
        unit = b / scale.unsqueeze(-1)
        n_products = count_from_zero(b)
        x, r = torch.zeros_like(b), unit
        if x0 is not None:
            x = torch.where((unit != 0).any(-1, keepdim=True), x0 / scale.unsqueeze(-1), 0)
            r = unit - operator(x)
            n_products = n_products + 1
        residual = vector_norm(r, dim=-1)
        limit = 10 * operator.size if self.max_steps is None else self.max_steps

        def cycle(
            x: Tensor, r: Tensor, residual: Tensor, active: Tensor, n_steps: Tensor, n_products: int | Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int | Tensor]:
            found = self.cycle(operator, r, residual, rtol, limit - n_steps, active)
            candidate = x + found.d
            r_next = unit - operator(candidate)
            residual_next = vector_norm(r_next, dim=-1)
            lower = active & (residual_next < residual)
            x = torch.where(lower.unsqueeze(-1), candidate, x)
            r = torch.where(lower.unsqueeze(-1), r_next, r)
            residual = torch.where(lower, residual_next, residual)
            n_steps = n_steps + found.n_steps
            active = lower & (residual > rtol) & (n_steps < limit)
            return x, r, residual, active, n_steps, n_products + found.n_products + 1

        active = (residual > rtol) & torch.isfinite(residual)
        x, _, residual, _, n_steps, n_products = repeat(
            lambda x, r, residual, active, n_steps, n_products: active,
            cycle,
            (x, r, residual, active, torch.zeros_like(active, dtype=torch.int64), n_products),
        )
        converged = residual <= rtol
        return LinearSolution(
            x=x * scale.unsqueeze(-1),
            residual=residual * scale,
            converged=converged,
            breakdown=~converged & (n_steps < limit),
            n_steps=n_steps,
            n_products=n_products,
        )

    @abstractmethod
    def cycle(
        self, operator: LinearOperator, r: Tensor, residual: Tensor, rtol: Tensor, n_left: Tensor, active: Tensor
    ) -> Correction:
        """Takes steps until the residual seems to be small enough, or nothing more can be done.

        Args:
            operator: The matrix `A`.
            r: Residual to begin with, `[*lead, N]`.
            residual: Its 2-norm, `[*lead]`.
            rtol: What it shall not exceed, `[*lead]`.
            n_left: Steps that a sample may take, `[*lead]`.
            active: Samples that take part, `[*lead]`; the correction of the others is finite, and does not matter.
        """

    def precondition(self, v: Tensor) -> Tensor:
        """What approximately solves `A z = v`, `[*lead, N]`."""
        return v if self.preconditioner is None else self.preconditioner(v)


def check_count(name: str, count: int) -> None:
    """Refuses what is no positive integer."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name}: got a {type(count).__name__}, expected a positive integer")
    if count < 1:
        raise ValueError(f"{name}: got {count}, expected a positive integer")


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products `a^H b` of vectors `[*lead, N]`, `[*lead]`."""
    return (a.conj() * b).sum(-1)
