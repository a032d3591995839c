"""When an iteration has ended, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive, positive_integer
from dyn_numerics.root.root_status import RootStatus

__all__ = ["RUNNING", "Progress", "Termination"]

RUNNING = -1
"""The status code of a sample that has not ended."""


class Progress(NamedTuple):
    """What a step has achieved, every sample by itself; norms are root mean squares.

    Attributes:
        norm: Norm of the residual, `[batch]`.
        best: Smallest norm of the residual before the step, `[batch]`.
        first: Norm of the residual at the start, `[batch]`.
        scale: What residuals are compared with, `[batch]`.
        tolerance: Norm of a residual that counts as zero, `[batch]`.
        moved: Norm of the change of the iterate, `[batch]`.
        step: Norm of the step that is to be small, `[batch]`: the same, or that of a step which a line search refused.
        size: Norm of the iterate, `[batch]`.
        idle: Steps since the smallest residual, `[batch]`.
        eps: Relative spacing of numbers in the precision of the user's state.
        closes_in: Whether the method comes nearer to a root whatever the residual does.
    """

    norm: Tensor
    best: Tensor
    first: Tensor
    scale: Tensor
    tolerance: Tensor
    moved: Tensor
    step: Tensor
    size: Tensor
    idle: Tensor
    eps: float
    closes_in: bool


@dataclass(frozen=True)
class Termination:
    """When to end beside `rtol`, `atol` and `max_steps`, which are about the residual and about patience with it.

    Every sample ends by itself: once its residual is within `atol + rtol * scale`, where the scale is the residual at the
    start of `root_find` and `h(z)` in `fixed_point`; and with a failure when its residual no longer falls or grows far
    beyond where it started. All norms are root mean squares over a sample.

    Args:
        step_rtol: With this or `step_atol`, a sample has only converged if its last step was small as well, at most
            `step_atol + step_rtol * |z|`, unless its residual is zero. With `atol=math.inf` the step alone decides, at a
            local minimum of the residual too.
        step_atol: See `step_rtol`; in the units of `z`.
        patience: Steps without a smaller residual after which a sample has stagnated. Methods without a line search may
            go up for a while before they come down.
        divergence: A sample has diverged when its residual is that many times what it was at the start.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import Termination, root_find
        >>> z0 = torch.ones(1, 1).double()
        >>> by_residual = root_find(lambda z: z**3, z0, solver="newton", atol=1e-6)
        >>> by_step = root_find(lambda z: z**3, z0, solver="newton", atol=1e-6, termination=Termination(step_atol=1e-9))
        >>> bool(by_residual.z > 1e-3), bool(by_step.z < 1e-8)
        (True, True)

    References:
        C. T. Kelley: Iterative Methods for Linear and Nonlinear Equations, SIAM 1995, section 5.2.
    """

    step_rtol: float | None = None
    step_atol: float | None = None
    patience: int = 50
    divergence: float = 1e6

    def __post_init__(self) -> None:
        for name in ("step_rtol", "step_atol"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name), "a positive number, or None")
        positive("divergence", self.divergence, "a positive number")
        positive_integer("patience", self.patience)

    @property
    def judges_steps(self) -> bool:
        """Whether a step has to be small."""
        return self.step_rtol is not None or self.step_atol is not None

    def at_start(self, norm: Tensor, tolerance: Tensor) -> Tensor:
        """How samples end that have taken no step, `[batch]`: a solution costs one evaluation.

        Args:
            norm: Norm of the residual, `[batch]`.
            tolerance: What counts as zero, `[batch]`; where it is infinite only a step can tell.
        """
        solved = (norm <= tolerance) & ((tolerance < torch.inf) | (norm == 0))
        code = torch.where(solved, RootStatus.CONVERGED.code, RUNNING)
        return torch.where(torch.isfinite(norm), code, RootStatus.NON_FINITE.code)

    def after_step(self, progress: Progress) -> Tensor:
        """How samples end after a step, `[batch]`, and `RUNNING` for those that go on.

        Args:
            progress: What the step has achieved.
        """
        norm, moved, size, eps = progress.norm, progress.moved, progress.size, progress.eps
        converged = norm <= progress.tolerance
        if self.judges_steps:
            small = progress.step <= (self.step_atol or 0.0) + (self.step_rtol or 0.0) * size
            converged = converged & (small | (norm == 0))
        at_rounding = norm <= eps**0.5 * progress.scale
        if progress.closes_in:
            # The residual may rise meanwhile, as far as it likes: it ends where there is nowhere to go.
            stalled, diverged, finite = moved == 0, torch.zeros_like(converged), ~torch.isnan(norm)
        else:
            stands = (moved <= 8 * eps * size) & ~(norm < progress.best)
            stalled = stands | (progress.idle >= self.patience)
            diverged = norm > self.divergence * progress.first
            finite = (norm < torch.inf) & (moved < torch.inf)
        code = torch.where(stalled, RootStatus.STAGNATED.code, RUNNING)
        code = torch.where(stalled & at_rounding, RootStatus.ROUNDING.code, code)
        code = torch.where(diverged, RootStatus.DIVERGED.code, code)
        code = torch.where(converged, RootStatus.CONVERGED.code, code)
        return torch.where(finite, code, RootStatus.NON_FINITE.code)
