"""Block cyclic reduction: block tridiagonal systems, all blocks at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Level", "reduce_cyclically", "solve_reduced"]


class Level(NamedTuple):
    """Every other block of unknowns, eliminated.

    Attributes:
        inverse: Inverses of the diagonal blocks of those that were eliminated, `[*lead, M, b, b]`.
        coupling: What was eliminated as a function of its neighbours before and after, `[*lead, M, b, 2 b]`.
        rest: The blocks before and after the diagonal of those that stay, `[*lead, M, b, 2 b]`.
    """

    inverse: Tensor
    coupling: Tensor
    rest: Tensor


def reduce_cyclically(rows: Tensor) -> tuple[Level, ...]:
    """Factorises block tridiagonal matrices by block cyclic reduction.

    The unknowns with odd numbers follow from their neighbours; without them the others are block tridiagonal again, half as
    many. Rows are exchanged within a block but not among blocks. That is stable where the symmetric part of the matrix is
    positive definite, or its diagonal blocks dominate; where not, digits may be lost, and a diagonal block may be singular
    although the matrix is not.

    Args:
        rows: The blocks before, on and after the diagonal, side by side, `[*lead, M, b, 3 b]`; the first of the first row and
            the last of the last are zero.

    Returns:
        The levels, from the first elimination to that of the last unknown, whose `coupling` and `rest` have no meaning.

    References:
        - D. Heller: Some aspects of the cyclic reduction algorithm for block tridiagonal linear systems (1976).
        - G. H. Golub, C. F. Van Loan: Matrix Computations, 4th ed. (2013), section 4.5.4; section 4.2.2 for matrices with a
          positive definite symmetric part.
    """
    b = rows.shape[-2]
    levels = []
    while rows.shape[-3] > 1:
        if rows.shape[-3] % 2:
            rows = torch.cat([rows, _identity_row(rows)], -3)
        even, odd = rows[..., 0::2, :, :], rows[..., 1::2, :, :]
        inverse = torch.linalg.inv_ex(odd[..., b : 2 * b])[0]
        coupling = inverse @ _sides(odd)
        before, after = even[..., :b], even[..., 2 * b :]
        # The first row has nothing before it: what comes round from the last is multiplied by zero.
        earlier, later = before @ coupling.roll(1, -3), after @ coupling
        levels.append(Level(inverse, coupling, _sides(even)))
        inner = even[..., b : 2 * b] - earlier[..., b:] - later[..., :b]
        rows = torch.cat([-earlier[..., :b], inner, -later[..., b:]], -1)
    last = torch.linalg.inv_ex(rows[..., b : 2 * b])[0]
    return *levels, Level(last, _sides(rows), _sides(rows))


def solve_reduced(levels: tuple[Level, ...], right: Tensor) -> Tensor:
    """Solves a system that `reduce_cyclically` has factorised.

    Args:
        levels: The factors.
        right: Right-hand side, `[*lead, M, b]`.

    Returns:
        The solution, `[*lead, M, b]`.
    """
    *eliminated, last = levels
    kept = []
    for level in eliminated:
        n_blocks = right.shape[-2]
        right = pad(right, (0, 0, 0, n_blocks % 2))
        y = _times(level.inverse, right[..., 1::2, :])
        kept.append((y, n_blocks))
        right = right[..., 0::2, :] - _times(level.rest, torch.cat([y.roll(1, -2), y], -1))
    x = _times(last.inverse, right)
    for level, (y, n_blocks) in zip(reversed(eliminated), reversed(kept), strict=True):
        odd = y - _times(level.coupling, torch.cat([x, x.roll(-1, -2)], -1))
        x = torch.stack([x, odd], -2).flatten(-3, -2)[..., :n_blocks, :]
    return x


def _sides(rows: Tensor) -> Tensor:
    b = rows.shape[-2]
    return torch.cat([rows[..., :b], rows[..., 2 * b :]], -1)


def _identity_row(rows: Tensor) -> Tensor:
    b = rows.shape[-2]
    row = pad(torch.eye(b, dtype=rows.dtype, device=rows.device), (b, b))
    return row.expand(*rows.shape[:-3], 1, b, 3 * b)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)
