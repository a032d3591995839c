"""What a solve cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Statistics"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts of one solve, int64 tensors `[]`; under `stepping="per_sample"` all but the first are `[batch]`.

    Attributes:
        n_evals: Calls of `f`, those that choose the first step included; equals a counter inside `f`. Per sample
            and under `torch.func.vmap` the accepted steps are computed twice where gradients are taken or more is kept
            than the states at the output times, and both times count.
        n_steps: Attempted steps.
        n_accepted: Accepted steps.
        n_rejected: Rejected attempts; `n_steps = n_accepted + n_rejected`.
        n_active_evals: Calls of `f` in which the problem was still running.
        n_jacobians: Jacobians of `f` that an implicit method made in its attempts; None of other methods.
        n_factorisations: Factorisations of matrices made of these.
        n_iterations: Newton iterations.
    """

    n_evals: Tensor
    n_steps: Tensor
    n_accepted: Tensor
    n_rejected: Tensor
    n_active_evals: Tensor
    n_jacobians: Tensor | None = None
    n_factorisations: Tensor | None = None
    n_iterations: Tensor | None = None

    @property
    def counts(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={value.tolist()}" for name, value in self.counts.items())
        return f"Statistics({counts})"
