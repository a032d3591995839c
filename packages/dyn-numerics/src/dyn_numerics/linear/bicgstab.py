"""The stabilised method of biconjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.krylov import Correction, KrylovSolver, dot
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import count_from_zero, repeat

__all__ = ["BiCGStab"]


class BiCGStab(KrylovSolver):
    """Stabilised biconjugate gradients, for any regular matrix: two products a step, and few vectors to keep.

    Its residual does not fall in every step, and it may break down where GMRES would not: for matrices whose eigenvalues
    are near the imaginary axis, take `GMRES`. Preconditioned from the right, so that the residual is that of the system
    itself. Where its recurrence breaks down, it starts anew from what it has.

    Args:
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.
        max_steps: Steps that a sample may take over all cycles; 10 N when None.
        preconditioner: Returns what approximately solves `A z = v`, for vectors `v` `[*lead, N]`, linearly and each sample
            by itself; a function, a module or a `LinearOperator`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `rtol` or `max_steps` is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import BiCGStab, MatrixOperator
        >>> operator = MatrixOperator(torch.tensor([[2.0, 1.0], [0.0, 2.0]]))
        >>> BiCGStab().solve(operator, torch.tensor([3.0, 2.0])).x
        tensor([1.0000, 1.0000])

    References:
        - H. A. van der Vorst: Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG for the solution of nonsymmetric
          linear systems (1992), section 3.
    """

    def cycle(
        self, operator: LinearOperator, r: Tensor, residual: Tensor, rtol: Tensor, n_left: Tensor, active: Tensor
    ) -> Correction:
        shadow = r
        least = torch.finfo(r.dtype).eps * residual

        def step(
            d: Tensor, r: Tensor, p: Tensor, rho: Tensor, active: Tensor, n_steps: Tensor, n_products: int | Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int | Tensor]:
            p_hat = self.precondition(p)
            v = operator(p_hat)
            alpha = (rho / dot(shadow, v)).unsqueeze(-1)
            s = r - alpha * v
            s_hat = self.precondition(s)
            t = operator(s_hat)
            squared = dot(t, t).real
            # Where s is zero so is t, and the step is done.
            omega = torch.where(squared > 0, dot(t, s) / squared, 0).unsqueeze(-1)
            r_next = s - omega * t
            rho_next = dot(shadow, r_next)
            size = vector_norm(r_next, dim=-1)
            taken = active & torch.isfinite(size)
            n_steps = n_steps + active
            # A recurrence without rho breaks down; so does one without omega, whose rho is zero as well.
            active = taken & (size > rtol) & (rho_next.abs() > least * size) & (n_steps < n_left)
            going = active.unsqueeze(-1)
            beta = (rho_next / rho).unsqueeze(-1) * (alpha / omega)
            return (
                torch.where(taken.unsqueeze(-1), d + alpha * p_hat + omega * s_hat, d),
                torch.where(going, r_next, r),
                torch.where(going, r_next + beta * (p - omega * v), p),
                torch.where(active, rho_next, rho),
                active,
                n_steps,
                n_products + 2,
            )

        start = (torch.zeros_like(r), r, r, dot(r, r), active, torch.zeros_like(n_left), count_from_zero(r))
        d, _, _, _, _, n_steps, n_products = repeat(
            lambda d, r, p, rho, active, n_steps, n_products: active, step, start
        )
        return Correction(d, n_steps, n_products)
