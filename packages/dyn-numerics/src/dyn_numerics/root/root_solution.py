"""What `root_find` and `fixed_point` return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dyn_numerics.errors import (
    BracketError,
    CoupledSamplesError,
    DivergenceError,
    MaxStepsError,
    NonFiniteError,
    SingularJacobianError,
    SolverError,
    StagnationError,
)
from dyn_numerics.root.root_statistics import RootStatistics
from dyn_numerics.root.root_status import RootStatus

__all__ = ["RootSolution"]

ERRORS: dict[RootStatus, type[SolverError]] = {
    RootStatus.MAX_STEPS: MaxStepsError,
    RootStatus.ROUNDING: StagnationError,
    RootStatus.NON_FINITE: NonFiniteError,
    RootStatus.STAGNATED: StagnationError,
    RootStatus.DIVERGED: DivergenceError,
    RootStatus.SINGULAR: SingularJacobianError,
    RootStatus.NO_SIGN_CHANGE: BracketError,
    RootStatus.COUPLED: CoupledSamplesError,
}


@dataclass(frozen=True, eq=False)
class RootSolution:
    """Roots or fixed points, one for each sample; unpacks as `z, stats = root_find(...)`.

    Attributes:
        z: The best iterates, in the structure of `z0`: those with the smallest residual, whether or not they converged.
        residual: Root mean square of `g(z)`, or of `h(z) - z`, there: `[batch]`, in the units of `g`.
        stats: What the search cost.
        status_code: How it ended, int64 `[batch]`; `status` reads it.

    Example:
        >>> import torch
        >>> from dyn_numerics import root_find
        >>> z, stats = root_find(lambda z: z**2 - 2, torch.ones(3, 1), solver="newton")
        >>> z.squeeze(1)
        tensor([1.4142, 1.4142, 1.4142])
    """

    z: Any
    residual: Tensor
    stats: RootStatistics
    status_code: Tensor

    def __iter__(self) -> Iterator[Any]:
        return iter((self.z, self.stats))

    @property
    def status(self) -> list[RootStatus]:
        """How the search ended, a sentence with a remedy for each sample."""
        return [RootStatus.from_code(code) for code in self.status_code.tolist()]

    @property
    def converged(self) -> Tensor:
        """Whether the residual is within its tolerance, `[batch]`."""
        return self.status_code == RootStatus.CONVERGED.code

    def raise_if_failed(self) -> RootSolution:
        """Returns the solution itself.

        Raises:
            SolverError: If a sample did not converge; the error carries this solution.
        """
        if not bool(self.converged.all()):
            raise self._error()
        return self

    def _error(self) -> SolverError:
        """The error that belongs to the first sample that failed."""
        statuses = self.status
        failed = [i for i, status in enumerate(statuses) if not status.is_success]
        first, status = failed[0], statuses[failed[0]]
        others = ""
        if len(failed) > 1:
            kinds = Counter(statuses[i].name for i in failed)
            counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
            others = f" Of {len(statuses)} samples {len(failed)} failed ({counts})."
        n_steps = int(self.stats.n_steps[first])
        steps = f"{n_steps} step" if n_steps == 1 else f"{n_steps} steps"
        where = f"residual {self.residual[first].item():.3g} at best, in {steps}"
        message = f"{status.sentence} Sample {first}: {where}.{others} {status.remedy}"
        return ERRORS[status](message, self, status)
