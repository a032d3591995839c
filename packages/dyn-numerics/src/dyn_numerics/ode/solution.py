"""What `odeint` returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dyn_numerics.errors import solver_error
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.internals import Internals
from dyn_numerics.ode.steps import Steps
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution of an initial value problem; unpacks as `t, x = odeint(...)`.

    What is said of one problem holds for every sample under `stepping="per_sample"`, where `[]` is `[batch]`.

    Attributes:
        t: Output times, `[T]`, or `[T, batch]` if they were given so, in the user's time unit. With `save="steps"` alone
            those of `steps`.
        x: States there, `[T, *x0.shape]` in the structure of `x0`, or what `Save(fn=...)` made of them, in the structure
            that it returns; NaN where the solve did not get.
        stats: What the solve cost.
        status_code: How it ended, int64 `[]`; `status` reads it.
        t_reached: The last time at which the state is known, `[]`, float64.
        dt_last: Magnitude of the last attempted step, `[]`, float64.
        steps: Start and ends of the accepted steps with the states there, with `save="steps"`, alone or among others;
            otherwise None.
        dense: The solution as a function of time, with `save="dense"` and at least one accepted step; otherwise None.
        internals: The solver's estimates at its steps, with `save=Save(internals=True)`; otherwise None.

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
    steps: Steps | None = None
    dense: DenseSolution | None = None
    internals: Internals | None = None

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
            raise solver_error(self._statuses(), self)
        return self

    def _statuses(self) -> list[Status]:
        codes: list[int] = self.status_code.reshape(-1).tolist()
        return [Status.from_code(code) for code in codes]
