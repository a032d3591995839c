"""Where a solution breaks: events, and stops at which something jumps."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.posed import Posed
from dyn_numerics.ode.scalar import Flag, Scalar, both, negate
from dyn_numerics.transforms import any_lane

__all__ = ["Break", "RecordBreaks"]


class Break(NamedTuple):
    """What happens at one time of every problem.

    Attributes:
        present: Whether anything happens, `[*lead]`.
        t: The time, `[*lead]`.
        x: State before, `[*lead, N]`.
        after: State with which the solve went on.
        t0: A time before, since which the solution is smooth, `[*lead]`.
        interpolant: Coefficients of the solution from then on, `[*lead, p + 1, N]`; used where events happen.
        cut: Whether an event ends the solve or changes the state, `[*lead]`.
        landed: Whether there is a stop, `[*lead]`.
        happened: Whether each event happens, `[*lead]` each.
        jumped: Whether each changes the state, `[*lead]` each.
    """

    present: Tensor
    t: Tensor
    x: Tensor
    after: Tensor
    t0: Tensor
    interpolant: Tensor
    cut: Tensor
    landed: Tensor
    happened: tuple[Tensor, ...]
    jumped: tuple[Tensor, ...]


class RecordBreaks(Observer):
    """Writes down what breaks a solution while it is solved.

    Args:
        posed: The problem.
        at_stops: Whether it breaks at the stops of the controller.
    """

    def __init__(self, posed: Posed, at_stops: bool) -> None:
        self._times, self._direction, self._at_stops = posed.times, posed.problem.clock.direction, at_stops
        self._never: tuple[Flag, ...] = (False,) * (0 if posed.problem.events is None else len(posed.problem.events))
        self._rows: list[Break] = []

    def observe(self, attempted: AttemptedStep) -> None:
        """Keeps what happens in an accepted step."""
        moved, clock, found = attempted.moved, attempted.problem.clock, attempted.found
        if moved is False:
            return
        cut: Flag = False
        happened = jumped = self._never
        if found is not None:
            cut, jumped = found.cut, found.jumped
            happened = tuple(
                both(happens, both(cut, theta == found.theta))
                for happens, theta in zip(found.happened, found.thetas, strict=True)
            )
            for i, occurrence in enumerate(attempted.occurrences):
                if occurrence is not None and any_lane(noted := both(found.happened[i], negate(happened[i]))):
                    only = tuple(noted if j == i else False for j in range(len(happened)))
                    self._add(attempted, occurrence.t, occurrence.x, occurrence.x, False, False, only, self._never)
        landed: Flag = False
        if self._at_stops and clock.stops is not None:
            landed = both(both(moved, clock.stops.hold(attempted.t1)), attempted.t1 != clock.end)
        if any_lane(cut) or any_lane(landed):
            self._add(attempted, attempted.t1, attempted.step.x, attempted.after, cut, landed, happened, jumped)

    def _add(
        self,
        attempted: AttemptedStep,
        t: Scalar,
        x: Tensor,
        after: Tensor,
        cut: Flag,
        landed: Flag,
        happened: tuple[Flag, ...],
        jumped: tuple[Flag, ...],
    ) -> None:
        piece = Piece(attempted.t0, attempted.t1, attempted.step.x, lambda: attempted.interpolant)
        until = piece if self._never else Piece.point(t, x)
        whole = partial(self._whole, x.shape[:-1], attempted.samples)
        cut, landed, *occurs = (whole(flag, torch.bool) for flag in (cut, landed, *happened))
        self._rows.append(
            Break(
                present=torch.stack([cut, landed, *occurs]).any(0),
                t=whole(t, self._times.dtype),
                x=whole(x, x.dtype),
                after=whole(after, x.dtype),
                t0=whole(until.t0, self._times.dtype),
                interpolant=whole(until.until(until.position(t)), until.coefficients.dtype),
                cut=cut,
                landed=landed,
                happened=tuple(occurs),
                jumped=tuple(whole(flag, torch.bool) for flag in jumped),
            )
        )

    def _whole(self, lead: torch.Size, samples: Tensor | None, value: Scalar | Flag, dtype: torch.dtype) -> Tensor:
        """A value of every problem, from one of those in the batch."""
        part = torch.as_tensor(value, dtype=dtype, device=self._times.device).detach()
        part = part.expand((*lead, *part.shape[len(lead) :]))
        if samples is None:
            return part
        return part.new_zeros(*self._times.shape[1:], *part.shape[1:]).index_copy(0, samples, part)

    def result(self) -> list[Break]:
        """The breaks in their order, those of every problem first; a problem with fewer than others has none at the end."""
        if not self._rows:
            return []
        present, t = (torch.stack(column) for column in ([b.present for b in self._rows], [b.t for b in self._rows]))
        order = torch.where(present, t * self._direction, torch.inf).argsort(dim=0, stable=True)
        count = int(present.sum(0).max()) if present.numel() else 0

        def sorted_column(*rows: Tensor) -> Tensor:
            column = torch.stack(rows)
            index = order[:count].reshape(count, *order.shape[1:], *[1] * (column.dim() - order.dim()))
            return column.gather(0, index.expand(count, *column.shape[1:]))

        columns = tree_map(sorted_column, *self._rows)
        return [tree_map(lambda column, i=i: column[i], columns) for i in range(count)]
