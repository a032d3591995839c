"""Where an observer keeps what it has seen: a list, or buffers that are written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dyn_numerics.ode.scalar import Flag, Scalar, where

__all__ = ["BufferRows", "ListRows", "Rows", "stack"]


class Rows(Protocol):
    """Rows of several values, kept at one output or more."""

    def add(self, keep: Flag, output: int | Tensor, values: Sequence[Scalar], samples: Tensor | None) -> None:
        """Adds one row of values `[*lead, ...]` where it is to be kept.

        Args:
            keep: A truth value, or `[*lead]`.
            output: Index of the first output that the row is for, `[*lead]`.
            values: One for each column.
            samples: Indices `[m]` of the samples that the values are of, or None when they are of all.
        """

    def columns(self, after: Tensor | None = None) -> list[Tensor]:
        """The values `[rows, *lead, ...]`; no column if there is no row.

        Args:
            after: A count `[]` that comes out of the loop, for one that is compiled.
        """

    def locate(self, after: Tensor | None = None) -> Tensor:
        """The row that each output would be in, which is that of the last one that has a row, `[T, *lead]`; -1 if in none.

        Args:
            after: As in `columns`.
        """

    def states(self, start: Tensor, after: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first column at each output that a row was added for, and whether it is there, `[T, *lead, N]` and `[T, *lead]`.

        Args:
            start: The first output, `[*lead, N]`.
            after: As in `columns`.
        """

    def __len__(self) -> int: ...


class ListRows:
    """Rows in a list: differentiable. A row that only some problems keep holds something for the others as well.

    Args:
        t: Output times `[T, *lead]`, in the dtype and on the device of host numbers among the values.
    """

    def __init__(self, t: Tensor) -> None:
        self._like, self._n_outputs = t, len(t)
        self._rows: list[Sequence[Scalar]] = []
        self._outputs: list[int | Tensor] = []

    def add(self, keep: Flag, output: int | Tensor, values: Sequence[Scalar], samples: Tensor | None) -> None:
        self._rows.append(values)
        self._outputs.append(where(keep, output, self._n_outputs))

    def columns(self, after: Tensor | None = None) -> list[Tensor]:
        return [stack(column, self._like) for column in zip(*self._rows, strict=True)]

    def locate(self, after: Tensor | None = None) -> Tensor:
        return self._numbers().cummax(0).values

    def states(self, start: Tensor, after: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at = self._numbers()
        found = torch.stack([start, *(row[0] for row in self._rows)])  # type: ignore[list-item]
        index = (at + 1).unsqueeze(-1).expand(*at.shape, start.shape[-1])
        return found.gather(0, index), at >= 0

    def _numbers(self) -> Tensor:
        """The row that was added for each output, `[T, *lead]`; -1 if none was."""
        lead, device = self._like.shape[1:], self._like.device
        number = torch.arange(len(self._rows), device=device).reshape(-1, *[1] * len(lead)).expand(-1, *lead)
        outputs = stack(self._outputs, number).reshape(number.shape)
        return torch.full((self._n_outputs + 1, *lead), -1, device=device).scatter(0, outputs, number)[:-1]

    def __len__(self) -> int:
        return len(self._rows)


class BufferRows:
    """Rows in buffers that are written in place, each at the index of its first output.

    It needs no host read, and inside a compiled loop no copy of a buffer is made.

    Args:
        t: Output times, `[T, *lead]`.
        columns: Shape and dtype of each column's values in one problem.
    """

    def __init__(
        self,
        t: Tensor,
        columns: Sequence[tuple[Sequence[int], torch.dtype]],
    ) -> None:
        n_outputs, lead, device = len(t), t.shape[1:], t.device
        self._n_outputs, self._lead = n_outputs, lead
        shape = (n_outputs + 1, lead.numel())  # the last row takes what is not to be kept
        self._buffers = [torch.empty((*shape, *inner), dtype=dtype, device=device) for inner, dtype in columns]
        self._written = torch.zeros(shape, dtype=torch.bool, device=device)
        self._all = torch.arange(lead.numel(), device=device)

    def add(self, keep: Flag, output: int | Tensor, values: Sequence[Scalar], samples: Tensor | None) -> None:
        at = self._all if samples is None else samples
        row = torch.where(torch.as_tensor(keep), torch.as_tensor(output), self._n_outputs).reshape(-1)
        for buffer, value in zip(self._buffers, values, strict=True):
            buffer.index_put_((row, at), torch.as_tensor(value).reshape(len(at), *buffer.shape[2:]))
        self._written.index_put_((row, at), torch.ones_like(row, dtype=torch.bool))

    def _read(self, buffer: Tensor, after: Tensor | None) -> Tensor:
        """A buffer `[T + 1, n, ...]` as values `[T, *lead, ...]`, in a compiled program not before the loop has ended."""
        values = buffer[:-1].reshape(self._n_outputs, *self._lead, *buffer.shape[2:])
        if after is None:
            return values
        # The compiler of torch 2.13 does not see that a loop writes into buffers. Read as they are, it would take what they
        # began with, and move the read in front of the loop; not so a view, and not what needs a value out of the loop.
        return values.index_select(0, torch.arange(self._n_outputs, device=buffer.device) + after.clamp(max=0))

    def columns(self, after: Tensor | None = None) -> list[Tensor]:
        return [self._read(buffer, after) for buffer in self._buffers]

    def locate(self, after: Tensor | None = None) -> Tensor:
        # An output without a row of its own is in the step of the one before.
        written = self._read(self._written, after)
        number = torch.arange(self._n_outputs, device=written.device).reshape(-1, *[1] * len(self._lead))
        return torch.where(written, number, -1).cummax(0).values

    def states(self, start: Tensor, after: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.columns(after)[0], self._read(self._written, after)

    def __len__(self) -> int:
        return self._n_outputs


def stack(values: Sequence[Scalar], like: Tensor) -> Tensor:
    """Values of one kind, tensors or host numbers, as one tensor; the latter in the dtype and on the device of `like`."""
    if not any(isinstance(value, Tensor) for value in values):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    numbers = (value if isinstance(value, Tensor) else like.new_full((), value) for value in values)
    return torch.stack([number.to(like.device) for number in numbers])
