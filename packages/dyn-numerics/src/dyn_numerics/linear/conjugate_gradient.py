"""The method of conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.krylov import Correction, KrylovSolver, dot
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import count_from_zero, repeat

__all__ = ["ConjugateGradient"]


class ConjugateGradient(KrylovSolver):
    """Conjugate gradients, for matrices that are Hermitian and positive definite.

    A direction in which the matrix is not positive ends a sample's steps: it breaks down, unless it has converged.

    Args:
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.
        max_steps: Steps that a sample may take over all cycles; 10 N when None.
        preconditioner: Returns what approximately solves `A z = v`, for vectors `v` `[*lead, N]`; Hermitian and positive
            definite as well, each sample by itself.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `rtol` or `max_steps` is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import ConjugateGradient, MatrixOperator
        >>> operator = MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> ConjugateGradient().solve(operator, torch.tensor([3.0, 3.0])).x
        tensor([1.0000, 1.0000])

    References:
        - M. R. Hestenes, E. Stiefel: Methods of conjugate gradients for solving linear systems (1952), section 3.
    """

    def cycle(
        self, operator: LinearOperator, r: Tensor, residual: Tensor, rtol: Tensor, n_left: Tensor, active: Tensor
    ) -> Correction:
        def step(
            d: Tensor, r: Tensor, p: Tensor, rho: Tensor, active: Tensor, n_steps: Tensor, n_products: int | Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int | Tensor]:
            product = operator(p)
            curvature = dot(p, product).real
            alpha = (rho / curvature).unsqueeze(-1)
            r_next = r - alpha * product
            z = self.precondition(r_next)
            rho_next = dot(r_next, z).real
            size = vector_norm(r_next, dim=-1)
            taken = active & (curvature > 0) & torch.isfinite(size)
            n_steps = n_steps + active
            active = taken & (size > rtol) & (rho_next > 0) & (n_steps < n_left)
            going = active.unsqueeze(-1)
            return (
                torch.where(taken.unsqueeze(-1), d + alpha * p, d),
                torch.where(going, r_next, r),
                torch.where(going, z + (rho_next / rho).unsqueeze(-1) * p, p),
                torch.where(active, rho_next, rho),
                active,
                n_steps,
                n_products + 1,
            )

        p = self.precondition(r)
        rho = dot(r, p).real
        start = (torch.zeros_like(r), r, p, rho, active & (rho > 0), torch.zeros_like(n_left), count_from_zero(r))
        d, _, _, _, _, n_steps, n_products = repeat(
            lambda d, r, p, rho, active, n_steps, n_products: active, step, start
        )
        return Correction(d, n_steps, n_products)
