"""What the search for a root cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["RootStatistics"]


@dataclass(frozen=True, eq=False)
class RootStatistics:
    """Counts of one search, int64 tensors.

    Attributes:
        n_evals: Calls of the function, each for all samples in the batch: `[]`. Equals a counter inside the function;
            a Jacobian is one call, whatever its size, and a product with it another. Where gradients are wanted, the
            residual of each step is found without them and computed again with them, and both count.
        n_steps: Steps of each sample, `[batch]`.
    """

    n_evals: Tensor
    n_steps: Tensor

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={value.tolist()}" for name, value in vars(self).items())
        return f"RootStatistics({counts})"
