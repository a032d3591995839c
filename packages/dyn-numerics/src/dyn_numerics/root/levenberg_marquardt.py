"""The Levenberg-Marquardt method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.loop import count_from_zero, repeat
from dyn_numerics.norms import rms_norm, rms_norm_at_any_scale
from dyn_numerics.root.jacobian import Jacobian
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["LevenbergMarquardt"]

LEAST_GAIN = 1e-4


class Region(NamedTuple):
    """How far the linear model of the residual is trusted.

    Attributes:
        damping: Damping of steps, `[batch]`, as it would be at the residual of the start.
        size: Size of the unknowns' columns of the Jacobian, the largest so far, `[batch, N]`.
        first: Norm of the residual at the start, `[batch]`.
    """

    damping: Tensor
    size: Tensor
    first: Tensor


class Trial(NamedTuple):
    """The search for a damping whose step lowers the residual.

    Attributes:
        z: Where it has led, `[batch, N]`.
        value: The residual there, `[batch, N]`.
        damping: The damping to try next, `[batch]`.
        growth: By what factor to raise it if that does not lower the residual, `[batch]`.
        searching: Which samples have not found theirs, `[batch]`.
        n_trials: Calls of the residual, an integer or `[]`.
    """

    z: Tensor
    value: Tensor
    damping: Tensor
    growth: Tensor
    searching: Tensor
    n_trials: int | Tensor


class LevenbergMarquardt(RootStepper):
    """The Levenberg-Marquardt method: steps that minimise the linearised residual, and are damped until the residual falls.

    With the Jacobian `J` a step `p` minimises `|J p + f|^2 + mu |D p|^2`, where `D` holds the sizes of the columns of `J`,
    the largest so far, so that units of the unknowns do not matter. There is a step at singular Jacobians too. The damping
    `mu` is in proportion to the residual, which makes the method as fast as Newton's near a regular root; the factor
    follows from how well the linear model foretold the residual. Each trial of a damping is one call of the function and a
    QR factorisation, the Jacobian is one call for all trials, and memory is `[batch, 2 N, N]`.

    The residual falls with every step. Where none lowers it by more than rounding the sample has stagnated: at a local
    minimum, which need not be a root.

    Args:
        jac: As in `Newton`.
        damping: The factor at the start; a larger one makes the first steps shorter.
        scaled: Whether columns are weighed by their own sizes, or all by the largest.

    Raises:
        TypeError: As `Newton`; if `damping` is not a number.
        ValueError: As `Newton`; if `damping` is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import LevenbergMarquardt, root_find
        >>> def g(z):  # whose Jacobian is singular at the root
        ...     return torch.stack([z[:, 0] + 10 * z[:, 1], z[:, 0] ** 2], -1)
        >>> z, stats = root_find(g, torch.ones(1, 2).double(), solver=LevenbergMarquardt())
        >>> bool(z.abs().max() < 1e-3)
        True

    References:
        J. J. Moré: The Levenberg-Marquardt algorithm: implementation and theory, Lecture Notes in Mathematics 630 (1978)
        105-116, for the scaling. K. Madsen, H. B. Nielsen, O. Tingleff: Methods for non-linear least squares problems,
        IMM, DTU, 2004, equation 2.21, for the factor. J.-Y. Fan, Y.-X. Yuan: On the quadratic convergence of the
        Levenberg-Marquardt method without nonsingularity assumption, Computing 74 (2005) 23-39, for the damping.
    """

    searches = False
    differentiable = False

    def __init__(self, jac: Callable[..., Tensor] | None = None, damping: float = 1e-3, scaled: bool = True) -> None:
        super().__init__()
        self._jacobian = Jacobian(jac)
        self.damping = positive("damping", damping, "a positive number")
        self.scaled = scaled

    def extra_repr(self) -> str:
        return f"damping={self.damping:g}, scaled={self.scaled}"

    def init(self, z: Tensor, context: Context) -> Region:
        return Region(
            torch.full_like(context.norm, self.damping), torch.zeros_like(z, dtype=real_dtype(z.dtype)), context.norm
        )

    def step(self, f: FlatFunction, z: Tensor, carry: Region, context: Context) -> Proposal:
        eps = torch.finfo(z.dtype).eps
        value, norm = context.value, context.norm
        jacobian = self._jacobian(f, z, context)
        size = torch.maximum(carry.size, self._column_sizes(jacobian))
        weight = torch.where(size > 0, size, 1).unsqueeze(-2)
        matrix = jacobian / weight
        # Relative to the residual, whose squares need not be numbers.
        unit = value / norm.unsqueeze(-1)
        fallen = norm / carry.first
        finite = torch.isfinite(matrix).all(dim=-1).all(dim=-1)

        def tried(trial: Trial) -> tuple[Trial]:
            factor = trial.damping.clamp(min=eps)  # never none: it could not grow again, and the matrix may be singular
            damping = (factor * fallen).unsqueeze(-1)
            scaled = _damped_solution(matrix, damping, unit)
            # How much the model says that the squared residual falls, relative to it.
            foretold = (
                rms_norm((matrix @ scaled.unsqueeze(-1)).squeeze(-1), dim=-1) ** 2
                + 2 * damping.squeeze(-1) * rms_norm(scaled, dim=-1) ** 2
            )
            searching = trial.searching
            there = torch.where(searching.unsqueeze(-1), z - norm.unsqueeze(-1) * scaled / weight.squeeze(-2), trial.z)
            value_there = f(there)
            ratio = rms_norm_at_any_scale(value_there) / norm
            gain = (1 - ratio) * (1 + ratio) / foretold
            accepted = searching & (gain > LEAST_GAIN)
            change = torch.where(accepted, (1 - (2 * gain - 1) ** 3).clamp(min=1 / 3), trial.growth)
            return (
                Trial(
                    z=torch.where(accepted.unsqueeze(-1), there, trial.z),
                    value=torch.where(accepted.unsqueeze(-1), value_there, trial.value),
                    damping=torch.where(searching, factor * change, trial.damping),
                    growth=torch.where(searching, 2 * trial.growth, trial.growth),
                    searching=searching & ~accepted & (foretold > eps),
                    n_trials=trial.n_trials + 1,
                ),
            )

        growth, n_trials = torch.full_like(norm, 2.0), count_from_zero(z)
        start = Trial(z, value, carry.damping, growth, context.running & finite, n_trials)
        (end,) = repeat(lambda trial: trial.searching, tried, (start,))
        return Proposal(
            z=end.z,
            carry=Region(end.damping, size, carry.first),
            value=end.value,
            status=torch.where(finite, 0, RootStatus.SINGULAR.code),
            n_evals=self._jacobian.n_evals + end.n_trials,
        )

    def _column_sizes(self, jacobian: Tensor) -> Tensor:
        """What unknowns are weighed by, `[batch, N]`."""
        size: Tensor = torch.linalg.vector_norm(jacobian, dim=-2)
        return size if self.scaled else size.amax(dim=-1, keepdim=True).expand_as(size)


def _damped_solution(matrix: Tensor, damping: Tensor, right: Tensor) -> Tensor:
    """Minimises `|A y - b|^2 + damping |y|^2`, `[batch, N]`.

    By orthogonalisation: the normal equations would square the condition of the matrix, and lose half of the digits.
    """
    n = matrix.shape[-1]
    below = torch.diag_embed(damping.sqrt().expand(-1, n)).to(matrix.dtype)
    q, r = torch.linalg.qr(torch.cat([matrix, below], dim=-2))
    rotated = q[..., :n, :].mH @ right.unsqueeze(-1)
    solution: Tensor = torch.linalg.solve_triangular(r, rotated, upper=True).squeeze(-1)
    return solution
