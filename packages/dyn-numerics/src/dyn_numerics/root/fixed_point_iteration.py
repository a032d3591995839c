"""Fixed-point iteration."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dyn_numerics.arguments import positive
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["FixedPointIteration"]


class FixedPointIteration(RootStepper):
    """Picard's iteration `z + damping * (h(z) - z)`; of a root `z + damping * g(z)`.

    Converges to the fixed point of a contraction, linearly at its rate. One evaluation a step.

    Args:
        damping: How much of each step is taken; below 1 it damps oscillations, above 1 it over-relaxes.

    Raises:
        TypeError: If `damping` is not a number.
        ValueError: If `damping` is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import FixedPointIteration, fixed_point
        >>> z, stats = fixed_point(torch.cos, torch.ones(1, 1), solver=FixedPointIteration())
        >>> round(z.item(), 2)
        0.74

    References:
        E. Picard, 1890; J. M. Ortega, W. C. Rheinboldt: Iterative Solution of Nonlinear Equations in Several Variables,
        Academic Press 1970, section 12.1.
    """

    def __init__(self, damping: float = 1.0) -> None:
        super().__init__()
        self.damping = positive("damping", damping, "a positive number, 1 for the plain iteration")

    def extra_repr(self) -> str:
        return f"damping={self.damping:g}"

    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        return Proposal(z + self.damping * context.value, carry)
