"""The equation of the adjoint as a vector field on flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_sensitivity.captured_tensors import edges
from dyn_sensitivity.ode.pace import Pace
from dyn_sensitivity.ode.recalled_field import RecalledField

__all__ = ["AdjointEquation", "Parts"]

Parts = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Leaves of the state, leaves of the adjoint, and gradients of args and parameters; empty lists for what is not solved."""


class AdjointEquation:
    """`dx/dt = f`, `da/dt = -a df/dx` and `dg/dt = -a df/dtheta` together, or without the first or the last.

    Where samples are problems of their own, one whose adjoint is zero stands still: it did not get there, or has nothing to say.

    Args:
        field: The user's field.
        like: Tensors like those that are solved.
        wanted: Tensors in args that want gradients.
        extra: Parameters that want gradients.
        trajectory: Leaves of the state at a time `[]`, or `[batch]` of every sample; None where the state is solved.
        solves_gradients: Whether the gradients of args and parameters are solved.
        start: The first time of all, `[]`, or `[batch]` of each, which samples that stand still are given.
        samples: Number of leading dimensions of the state that count samples, each a problem of its own.
        pace: The times of the samples as functions of the variable of the solve; that is the time itself if None.

    Attributes:
        layout: Layout of what is solved.
    """

    n_parts = 1

    def __init__(
        self,
        field: RecalledField,
        like: Parts,
        wanted: Sequence[Tensor],
        extra: Sequence[Tensor],
        *,
        trajectory: Callable[[Tensor], list[Tensor]] | None,
        solves_gradients: bool,
        start: Tensor,
        samples: int,
        pace: Pace | None = None,
    ) -> None:
        self._field, self._wanted, self._extra = field, wanted, extra
        self._trajectory, self._solves_gradients = trajectory, solves_gradients
        self._start, self._samples, self._pace = start, samples, pace
        self._known = edges(extra)
        self._n_moving = field.n_state * (1 if trajectory is not None else 2)
        self.layout = StateLayout(self.solved(*like), "x0")
        device = self.layout.device.type
        mixed = torch.is_autocast_enabled(device)
        self._autocast: Callable[[], AbstractContextManager[object]] = (
            autocast_of_caller(device) if mixed else nullcontext
        )

    def take(self, samples: Tensor | None) -> AdjointEquation:
        """The field of some of the samples: it is of all."""
        return self

    def parts(self, vector: Tensor) -> Parts:
        """What a vector `[N]` holds."""
        return self._read(vector, len(self.layout.sizes))

    def _read(self, vector: Tensor, count: int) -> Parts:
        """The first leaves of a vector, so many of them."""
        layout, n, found, end = self.layout, self._field.n_state, [], 0
        for size, shape, dtype in zip(layout.sizes[:count], layout.shapes, layout.dtypes, strict=False):
            leaf, end = vector[end : end + size].view(shape), end + size
            if leaf.dtype != dtype:
                leaf = (leaf if dtype.is_complex else leaf.real).to(dtype)
            found.append(leaf)
        rest = found if self._trajectory is not None else found[n:]
        return found[: len(found) - len(rest)], rest[:n], rest[n:]

    def vector(self, state: list[Tensor], adjoint: list[Tensor], gradients: list[Tensor]) -> Tensor:
        """A vector that holds these, empty lists for what is not solved."""
        return torch.cat([leaf.reshape(-1) for leaf in (*state, *adjoint, *gradients)]).to(self.layout.dtype)

    def solved(self, state: Any, adjoint: Any, gradients: Any) -> tuple[Any, ...]:
        """What is solved of these."""
        parts = (state,) if self._trajectory is None else ()
        return (*parts, adjoint, gradients) if self._solves_gradients else (*parts, adjoint)

    def no_gradients(self) -> list[Tensor]:
        """Gradients of args and parameters that are zero."""
        return [torch.zeros_like(p) for p in (*self._wanted, *self._extra)]

    def alive(self, adjoint: Sequence[Tensor]) -> Tensor | None:
        """Which samples move, `[batch]`; None where all are one problem."""
        if not self._samples:
            return None
        return torch.stack([(a != 0).reshape(len(a), a.shape[1:].numel()).any(1) for a in adjoint]).any(0)

    def __call__(self, t: Tensor, vector: Tensor) -> Tensor:
        """The slope of a vector `[N]` at a time `[]`."""
        state, adjoint, _ = self._read(vector, self._n_moving)
        slope, alive, of_state, rest = self._pull_back(t, state, adjoint, by_rest=self._solves_gradients)
        if self._trajectory is not None:
            slope = []
        elif alive is not None:
            slope = [where_samples(alive, k, torch.zeros_like(k)) for k in slope]
        return self.vector(slope, of_state, rest)

    def gradients(self, t: Tensor, vector: Tensor) -> list[Tensor]:
        """What a vector `[N]` adds to the gradients of args and parameters at a time `[]`."""
        state, adjoint, _ = self._read(vector, self._n_moving)
        return self._pull_back(t, state, adjoint, by_state=False)[3]

    def _pull_back(
        self, t: Tensor, state: Sequence[Tensor], adjoint: Sequence[Tensor], **by: bool
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor], list[Tensor]]:
        """The slope, which samples move, and the products with the adjoint by state and by the rest."""
        alive, rate = self.alive(adjoint), None
        if self._pace is not None:
            t, rate = self._pace(t)
        now = t if alive is None else torch.where(alive, t, self._start.to(t.dtype))
        if self._trajectory is not None:
            state, places = self._trajectory(now), self._field.places
            if places is not None:  # one that never moves takes another's place there, too
                state, now = [leaf[places] for leaf in state], now[places]
        cotangent = [-a for a in adjoint] if rate is None else [-scaled(a, rate) for a in adjoint]
        with self._autocast():
            slope, of_state, rest = self._field.pull_back(
                self._field.time_of(now, state), state, cotangent, self._wanted, self._extra, known=self._known, **by
            )
        if rate is not None:
            slope = [scaled(k, rate) for k in slope]
        return slope, alive, of_state, rest


def where_samples(alive: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One of two leaves `[batch, ...]` for each sample."""
    return torch.where(alive.reshape(-1, *[1] * (a.dim() - 1)), a, b)


def scaled(leaf: Tensor, by: Tensor) -> Tensor:
    """A leaf `[batch, ...]` multiplied with a number for each sample, in its own dtype."""
    return leaf * by.to(real_dtype(leaf.dtype)).reshape(-1, *[1] * (leaf.dim() - 1))
