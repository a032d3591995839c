"""What `odeint` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.errors import solver_error
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.events.event_record import EventRecord
from dyn_numerics.ode.internals import Internals
from dyn_numerics.ode.save import Form, Save
from dyn_numerics.ode.steps import Steps
from dyn_numerics.progress import ProgressBar
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status
from dyn_numerics.transforms import under_transform

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution of an initial value problem; unpacks as `t, x = odeint(...)`.

    What is said of one problem holds for every sample under `stepping="per_sample"`, where `[]` is `[batch]`.

    Attributes:
        t: Output times, `[T]`, or `[T, batch]` if they were given so, in the user's time unit. With `save="steps"` alone
            those of `steps`.
        x: States there, `[T, *x0.shape]` in the structure of `x0`, or what `Save(fn=...)` made of them, in the structure
            that it returns; NaN where the solve did not get, or after it ended.
        stats: What the solve cost.
        status_code: How it ended, int64 `[]`; `status` reads it.
        t_reached: The last time at which the state is known, `[]`, float64.
        dt_last: Magnitude of the last attempted step, `[]`, float64.
        steps: Start and ends of the accepted steps with the states there, with `save="steps"`, alone or among others;
            otherwise None.
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
    steps: Steps | None = None
    dense: DenseSolution | None = None
    internals: Internals | None = None
    events: tuple[EventRecord, ...] = ()
    _resumption: Callable[..., Solution] | str = field(
        default="that was compiled, loaded or copied, expected one as odeint returned it", repr=False
    )

    def __iter__(self) -> Iterator[Any]:
        return iter((self.t, self.x))

    @property
    def status(self) -> Status | list[Status]:
        """How the solve ended, as a sentence with a remedy; under `stepping="per_sample"` a list, one for each sample."""
        statuses = self._statuses()
        return statuses if self.status_code.dim() else statuses[0]

    def resume(
        self,
        t_span: Tensor | Sequence[float],
        *,
        save: Form | Save | None = None,
        max_steps: int | None = None,
        progress: bool | ProgressBar | None = None,
        throw: bool | None = None,
    ) -> Solution:
        """Goes on where the solution ends: with the same field, method and tolerances, step size and controller memory.

        No evaluation is repeated and no first step estimated, unless a gradient would be missing otherwise: where the
        solve that is resumed recorded none, or where the output times have one, the field is evaluated at the start again.
        The field must be what it was. Gradients flow back through the end of the solution. What has failed stays failed:
        its outputs are NaN, its status is kept, and `throw` raises it again.

        Args:
            t_span: Output times, `[T]` or `[T, batch]`, in the direction of the solve, from the last one on. What a terminal
                event ended stays ended then; it goes on where they start at `t_reached`, and the event does not happen
                there again.
            save: What to keep, `max_steps` over the resumed solve, `progress` and `throw`: as in `odeint`, and as they
                were there by default.
            max_steps: See `save`.
            progress: See `save`.
            throw: See `save`.

        Returns:
            The solution from the first of these times on, with its own statistics.

        Raises:
            SolverError: As `odeint`.
            TypeError: As `odeint`, of these arguments.
            ValueError: As `odeint`, of these arguments; if the times start elsewhere or go the other way; inside of
                `torch.compile` and `torch.func`, and for a solution that comes out of these, or that was copied or loaded.

        Example:
            >>> import torch
            >>> from dyn_numerics import odeint
            >>> first = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], rtol=1e-6)
            >>> second = first.resume([1.0, 2.0])
            >>> round(second.x[-1].item(), 4), bool(second.stats.n_evals < first.stats.n_evals)
            (0.1353, True)
        """
        resumption = self._resumption
        if torch.compiler.is_compiling() or under_transform():
            resumption = "inside of torch.compile or torch.func, expected to go on outside"
        if isinstance(resumption, str):
            raise ValueError(f"resume: got a solution {resumption}; try odeint from its last state")
        return resumption(t_span, save=save, max_steps=max_steps, progress=progress, throw=throw)

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

    def __getstate__(self) -> dict[str, Any]:
        # The field may be a function that nothing can load.
        return {name: value for name, value in vars(self).items() if name != "_resumption"}

    def _statuses(self) -> list[Status]:
        codes: list[int] = self.status_code.reshape(-1).tolist()
        return [Status.from_code(code) for code in codes]
