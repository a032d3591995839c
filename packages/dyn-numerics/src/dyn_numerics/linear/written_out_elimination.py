"""Gaussian elimination of small matrices, written out in operations on all of them at once, which a compiler fuses."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eliminate", "substitute"]


def eliminate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Factorises matrices with partial pivoting, `P L U`.

    The program grows with the cube of N. Numbers of one matrix are far apart in memory and those of all matrices together,
    so that a processor computes with several of them at once.

    Args:
        matrix: `[*lead, N, N]`, real.

    Returns:
        `U` with the inverses of its diagonal and below them `L` without its ones, `[*lead, N, N]`; and which row of the
        matrix each of theirs is, `[*lead, N]`, int64.

    Example:
        >>> import torch
        >>> from dyn_numerics.linear.written_out_elimination import eliminate, substitute
        >>> factors, order = eliminate(torch.tensor([[0.0, 2.0], [4.0, 1.0]]))
        >>> factors, order
        (tensor([[0.2500, 1.0000],
                [0.0000, 0.5000]]), tensor([1, 0]))
        >>> substitute(factors, order, torch.tensor([2.0, 5.0]))
        tensor([1., 1.])

    References:
        G. H. Golub, C. F. Van Loan: Matrix Computations, 4th ed. (2013), algorithm 3.4.1.
    """
    rows = [list(row.unbind(-1)) for row in matrix.unbind(-2)]
    size = len(rows)
    order = [torch.full_like(row[0], i, dtype=torch.int64) for i, row in enumerate(rows)]
    for k in range(size):
        largest = rows[k][k].abs()
        pivot = torch.full_like(order[k], k)
        for i in range(k + 1, size):
            magnitude = rows[i][k].abs()
            larger = magnitude > largest
            pivot, largest = torch.where(larger, i, pivot), torch.where(larger, magnitude, largest)
        for i in range(k + 1, size):
            here = pivot == i
            order[k], order[i] = torch.where(here, order[i], order[k]), torch.where(here, order[k], order[i])
            pairs = list(zip(rows[k], rows[i], strict=True))
            rows[k] = [torch.where(here, other, own) for own, other in pairs]
            rows[i] = [torch.where(here, own, other) for own, other in pairs]
        rows[k][k] = 1 / rows[k][k]
        for i in range(k + 1, size):
            rows[i][k] = rows[i][k] * rows[k][k]
            for j in range(k + 1, size):
                rows[i][j] = rows[i][j] - rows[i][k] * rows[k][j]
    return torch.stack([torch.stack(row) for row in rows]).movedim((0, 1), (-2, -1)), torch.stack(order).movedim(0, -1)


def substitute(factors: Tensor, order: Tensor, b: Tensor) -> Tensor:
    """Solves systems that `eliminate` has factorised.

    Args:
        factors: `L` and `U`, `[*lead, N, N]`.
        order: Which row of the matrix each of theirs is, `[*lead, N]`.
        b: Right-hand sides, `[*lead, N]`.
    """
    rows = [row.unbind(-1) for row in factors.unbind(-2)]
    x = list(b.gather(-1, order).unbind(-1))
    size = len(x)
    for k in range(size):
        for i in range(k + 1, size):
            x[i] = x[i] - rows[i][k] * x[k]
    for k in reversed(range(size)):
        x[k] = x[k] * rows[k][k]
        for i in range(k):
            x[i] = x[i] - rows[i][k] * x[k]
    return torch.stack(x, -1)
