"""The generalised minimal residual method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics.linear.krylov import Correction, KrylovSolver, check_count
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.loop import count_from_zero, repeat
from dyn_numerics.transforms import under_transform

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
        eps, tiny = torch.finfo(r.dtype).eps, torch.finfo(r.dtype).tiny
        rows = torch.arange(n_rows, device=r.device)

        def unit(k: int | Tensor) -> Tensor:
            return (rows == k).to(r.dtype)

        def step(now: _Arnoldi) -> tuple[_Arnoldi]:
            here, below = unit(now.k), unit(now.k + 1)
            w = operator(self.precondition(now.v))
            size = vector_norm(w, dim=-1)
            known = now.basis if isinstance(now.k, Tensor) else now.basis[..., : now.k + 1, :]
            h = torch.zeros_like(known[..., 0])
            for _ in range(2):
                # Products of matrices would be faster, but BLAS rounds a sample as its place in memory will have it.
                along = (known.conj() * w.unsqueeze(-2)).sum(-1)
                w = w - (along.unsqueeze(-1) * known).sum(-2)
                h = h + along
            h = torch.nn.functional.pad(h, (0, n_rows - h.shape[-1]))  # [*lead, n_rows]
            rest = vector_norm(w, dim=-1)
            # What rounding left is no direction: the Krylov space is complete.
            rest = torch.where(rest > 10 * eps * size, rest, 0)

            column = (now.rotations * h.unsqueeze(-2)).sum(-1)  # [*lead, n_rows]
            last = (now.q * h).sum(-1)
            diagonal = torch.hypot(last.abs(), rest)
            # It vanishes where the matrix is singular on a space that is complete, and exceeds nothing where w is not finite.
            taken = now.active & (diagonal > 10 * eps * size + tiny)
            mask = taken.unsqueeze(-1)
            cosine = (last / diagonal).unsqueeze(-1)
            sine = (rest / diagonal).unsqueeze(-1)
            rotated = torch.where(mask, cosine.conj() * now.q + sine * below, 0)
            column = torch.where(mask, column + here * diagonal.unsqueeze(-1), 0)
            q = torch.where(mask, cosine * below - sine * now.q, 0)
            v = torch.where(mask & (rest > 0).unsqueeze(-1), w / rest.unsqueeze(-1), 0)

            n_steps = now.n_steps + now.active
            unsolved = residual * q[..., 0].abs() > rtol
            following = _Arnoldi(
                basis=_write(now.basis, now.k + 1, v),
                rotations=_write(now.rotations, now.k, rotated),
                triangle=_write(now.triangle, now.k, column),
                v=v,
                q=q,
                k=now.k + 1,
                active=taken & unsolved & (n_steps < n_left),
                n_steps=n_steps,
                n_products=now.n_products + 1,
            )
            return (following,)

        zeros = torch.zeros_like(r[..., :1])  # [*lead, 1]
        square = zeros.unsqueeze(-1).repeat(*(1 for _ in r.shape[:-1]), n_rows, n_rows)
        v = torch.where(active.unsqueeze(-1), r / residual.unsqueeze(-1), 0)
        start = _Arnoldi(
            basis=unit(0).unsqueeze(-1) * v.unsqueeze(-2),
            rotations=square,
            triangle=square.clone(),
            v=v,
            q=zeros + unit(0),
            k=count_from_zero(r),
            active=active,
            n_steps=torch.zeros_like(n_left),
            n_products=count_from_zero(r),
        )
        (last,) = repeat(lambda now: now.active & (now.k < n_columns), step, (start,))
        # Columns that were not taken are zero: with a one on their diagonal their coefficients are zero as well.
        triangle = last.triangle.mT[..., :-1, :-1]
        vacant = torch.diagonal(triangle, dim1=-2, dim2=-1) == 0
        triangle = triangle + torch.diag_embed(vacant.to(r.dtype))
        right = residual.unsqueeze(-1) * last.rotations[..., :-1, 0]
        y = torch.linalg.solve_triangular(triangle, right.unsqueeze(-1), upper=True)  # [*lead, n_columns, 1]
        d = self.precondition((y * last.basis[..., :-1, :]).sum(-2))
        return Correction(d, last.n_steps, last.n_products)


class _Arnoldi(NamedTuple):
    """A cycle: the basis of the Krylov space, and the problem of least squares in it.

    The columns `h` of the Hessenberg matrix become triangular by rotations, whose product is kept: to rotate a new column
    is one product with it, however many rotations there were. Rows that have not been written are zero, those of a sample
    that has ended stay so.

    Attributes:
        basis: Orthonormal vectors, one in a row, `[*lead, n_rows, N]`.
        rotations: Rows of the product of all rotations that none will change any more, `[*lead, n_rows, n_rows]`.
        triangle: Rotated columns, one in a row, `[*lead, n_rows, n_rows]`.
        v: The newest vector of the basis, `[*lead, N]`.
        q: The row of the product that the next rotation will change, `[*lead, n_rows]`.
        k: The column that comes next.
        active: Samples that take part, `[*lead]`.
        n_steps: Steps taken, `[*lead]`.
        n_products: Calls of the operator.
    """

    basis: Tensor
    rotations: Tensor
    triangle: Tensor
    v: Tensor
    q: Tensor
    k: int | Tensor
    active: Tensor
    n_steps: Tensor
    n_products: int | Tensor


def _write(rows: Tensor, place: int | Tensor, row: Tensor) -> Tensor:
    """Writes a row `[*lead, n]` into a place of rows `[*lead, n_rows, n]` that was zero: where Python knows it, without a copy."""
    if isinstance(place, int) and not under_transform():
        rows[..., place, :] = row
        return rows
    here = (torch.arange(rows.shape[-2], device=rows.device) == place).unsqueeze(-1)
    return torch.where(here, row.unsqueeze(-2), rows)
