"""What `odeint` returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dyn_numerics.errors import solver_error
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.events.event_record import EventRecord
from dyn_numerics.ode.internals import Internals
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution of an initial value problem; unpacks as `t, x = odeint(...)`.

    What is said of one problem holds for every sample under `stepping="per_sample"`, where `[]` is `[batch]`.

    Attributes:
        t: Output times, `[T]`, or `[T, batch]` if they were given so, in the user's time unit. With `save="steps"` the
            ends of the accepted steps, `[n + 1]`, or `[n + 1, batch]` with every column filled up with its last one.
        x: States there, `[T, *x0.shape]` in the structure of `x0`; NaN where the solve did not get, or after it ended.
        stats: What the solve cost.
        status_code: How it ended, int64 `[]`; `status` reads it.
        t_reached: The last time at which the state is known, `[]`, float64.
        dt_last: Magnitude of the last attempted step, `[]`, float64.
        dense: The solution as a function of time, with `save="dense"` and at least one accepted step; otherwise None.
        internals: The solver's estimates at its steps, with `save=Save(internals=True)`; otherwise None.
        events: What happened, a record for each of the `events`, in their order.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0])
        >>> t, x = sol
        >>> sol.status.name, x.shape
        ('SUCCESS', torch.Size([2, 1]))
    """

    t: Tensor
    x: Any
    stats: Statistics
    status_code: Tensor
    t_reached: Tensor
    dt_last: Tensor
    dense: DenseSolution | None = None
    internals: Internals | None = None
    events: tuple[EventRecord, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.t, self.x))

    @property
    def status(self) -> Status | list[Status]:
        """How the solve ended, as a sentence with a remedy; under `stepping="per_sample"` a list, one for each sample."""
        statuses = self._statuses()
        return statuses if self.status_code.dim() else statuses[0]

    def raise_if_failed(self) -> Solution:
        """Returns the solution itself.

        Raises:
            SolverError: If the solve, or that of a sample, did not reach its end; the error carries this solution.
        """
        if bool((self.status_code != Status.SUCCESS.code).any()):
            statuses = self._statuses()
            if not all(status.is_success for status in statuses):
                raise solver_error(statuses, self)
        return self

    def _statuses(self) -> list[Status]:
        codes: list[int] = self.status_code.reshape(-1).tolist()
        return [Status.from_code(code) for code in codes]
