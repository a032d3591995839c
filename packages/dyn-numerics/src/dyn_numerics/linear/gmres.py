"""The generalised minimal residual method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.krylov import Correction, KrylovSolver, check_count, no_products
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import repeat

__all__ = ["GMRES"]


class GMRES(KrylovSolver):
    """Generalised minimal residuals, for any regular matrix: the least residual over the Krylov space, restarted.

    The basis is orthogonalised twice by classical Gram-Schmidt, in products of all samples at once, which keeps it
    orthogonal to rounding. Preconditioned from the right, so that the residual is that of the system itself. It keeps
    `restart + 1` vectors.

    Args:
        restart: Steps after which it starts anew from what it has; N steps solve any regular system.
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.
        max_steps: Steps that a sample may take over all cycles; 10 N when None.
        preconditioner: Returns what approximately solves `A z = v`, for vectors `v` `[*lead, N]`, linearly and each sample
            by itself; a function, a module or a `LinearOperator`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `restart`, `rtol` or `max_steps` is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import GMRES, MatrixOperator
        >>> rotation = MatrixOperator(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> found = GMRES().solve(rotation, torch.tensor([1.0, 2.0]))
        >>> found.x
        tensor([ 2., -1.])
        >>> found.n_steps
        tensor(2)

    References:
        - Y. Saad, M. H. Schultz: GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems
          (1986), algorithm 4.
        - L. Giraud, J. Langou, M. Rozloznik: The loss of orthogonality in the Gram-Schmidt orthogonalization process
          (2005): twice is enough.
    """

    def __init__(
        self,
        restart: int = 20,
        rtol: float = 1e-5,
        max_steps: int | None = None,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(rtol, max_steps, preconditioner)
        check_count("restart", restart)
        self.restart = restart

    def extra_repr(self) -> str:
        return f"restart={self.restart}, {super().extra_repr()}"

    def cycle(
        self, operator: LinearOperator, r: Tensor, residual: Tensor, rtol: Tensor, n_left: Tensor, active: Tensor
    ) -> Correction:
        n_columns = min(self.restart, operator.size)
        n_rows = n_columns + 1
        eps = torch.finfo(r.dtype).eps
        rows = torch.arange(n_rows, device=r.device)

        # The Hessenberg matrix H = V^H A V becomes triangular by rotations, whose product Q is kept: one product with it
        # rotates a new column, however many rotations there were. Row k of V is the k-th vector of the basis, row k of Q
        # final once column k is. All are zero where nothing has been written, and so is a row of a sample that has ended.
        def unit(k: Tensor) -> Tensor:
            return (rows == k).to(r.dtype)

        def write(buffer: Tensor, place: Tensor, row: Tensor) -> Tensor:
            return torch.addcmul(buffer, place.unsqueeze(-1), row.unsqueeze(-2))

        def step(
            basis: Tensor,
            rotations: Tensor,
            triangle: Tensor,
            v: Tensor,
            q: Tensor,
            k: Tensor,
            active: Tensor,
            n_steps: Tensor,
            n_products: int | Tensor,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int | Tensor]:
            here, below = unit(k), unit(k + 1)
            w = operator(self.precondition(v))
            size = vector_norm(w, dim=-1)
            h = torch.zeros_like(q)
            for _ in range(2):
                along = basis.conj() @ w.unsqueeze(-1)  # [*lead, n_rows, 1]
                w = w - (basis.mT @ along).squeeze(-1)
                h = h + along.squeeze(-1)
            rest = vector_norm(w, dim=-1)
            # What rounding left is no direction: the Krylov space is complete.
            rest = torch.where(rest > 10 * eps * size, rest, 0)

            column = (rotations @ h.unsqueeze(-1)).squeeze(-1)  # [*lead, n_rows]
            last = (q * h).sum(-1)
            diagonal = torch.hypot(last.abs(), rest)
            # The diagonal vanishes where the matrix is singular on the space that is complete, and is NaN where w is.
            taken = active & (diagonal > 10 * eps * size) & torch.isfinite(diagonal)
            mask = taken.unsqueeze(-1)
            cosine = (last / diagonal).unsqueeze(-1)
            sine = (rest / diagonal).unsqueeze(-1)
            rotated = torch.where(mask, cosine.conj() * q + sine * below, 0)
            q = torch.where(mask, cosine * below - sine * q, 0)
            column = torch.where(mask, column + here * diagonal.unsqueeze(-1), 0)
            v = torch.where(mask & (rest > 0).unsqueeze(-1), w / rest.unsqueeze(-1), 0)

            n_steps = n_steps + active
            unsolved = residual * q[..., 0].abs() > rtol
            return (
                write(basis, below, v),
                write(rotations, here, rotated),
                write(triangle, column, here[:-1].expand(*q.shape[:-1], -1)),
                v,
                q,
                k + 1,
                taken & unsolved & (n_steps < n_left),
                n_steps,
                n_products + 1,
            )

        lead = r.shape[:-1]
        zeros = torch.zeros_like(r[..., :1])  # [*lead, 1]
        v = torch.where(active.unsqueeze(-1), r / residual.unsqueeze(-1), 0)
        q = zeros + unit(rows[0])
        start = (
            write((zeros.unsqueeze(-1)).expand(*lead, n_rows, operator.size), unit(rows[0]), v),
            (zeros.unsqueeze(-1)).expand(*lead, n_rows, n_rows),
            (zeros.unsqueeze(-1)).expand(*lead, n_rows, n_columns),
            v,
            q,
            torch.zeros((), dtype=torch.int64, device=r.device),
            active,
            torch.zeros_like(n_left),
            no_products(r),
        )
        basis, rotations, triangle, _, _, _, _, n_steps, n_products = repeat(
            lambda basis, rotations, triangle, v, q, k, active, n_steps, n_products: active & (k < n_columns),
            step,
            start,
        )
        # Columns that were not taken are zero: with a one on their diagonal their coefficients are zero as well.
        triangle = triangle[..., :-1, :]
        vacant = torch.diagonal(triangle, dim1=-2, dim2=-1) == 0
        triangle = triangle + torch.diag_embed(vacant.to(r.dtype))
        right = (residual.unsqueeze(-1) * rotations[..., :-1, 0]).unsqueeze(-1)  # [*lead, n_columns, 1]
        y = torch.linalg.solve_triangular(triangle, right, upper=True)
        d = self.precondition((basis[..., :-1, :].mT @ y).squeeze(-1))
        return Correction(d, n_steps, n_products)
