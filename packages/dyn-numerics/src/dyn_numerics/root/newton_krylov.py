"""Newton's method with Krylov solvers."""

from __future__ import annotations

from numbers import Real
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import constant, kind_of
from dyn_numerics.linear.gmres import GMRES
from dyn_numerics.linear.jacobian_operator import JacobianOperator
from dyn_numerics.linear.linear_solver import LinearSolver
from dyn_numerics.loop import when
from dyn_numerics.norms import norm_at_any_scale
from dyn_numerics.root.newton import newton_step
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["NewtonKrylov"]

FIRST_FORCING = 0.5
LARGEST_FORCING = 0.9
GAMMA = 0.9


class Forcing(NamedTuple):
    """What the next forcing term follows from.

    Attributes:
        forcing: The last forcing term, `[batch]`.
        norm: The residual that it was for, `[batch]`.
    """

    forcing: Tensor
    norm: Tensor


class NewtonKrylov(RootStepper):
    """Newton's method with linear systems that are solved by iteration, from products with the Jacobian alone.

    For large N: no matrix is made. A linear solve ends once its residual has fallen to the forcing term times the residual
    of the nonlinear system. That of Eisenstat and Walker follows from how fast the latter falls: far from a root little is
    spent on accuracy, and near one convergence is superlinear. With a number for it, convergence is linear at that rate at
    most. A product calls the function once; memory is that of the linear solver.

    A linear solve that ended too early is followed as far as it came, if it lowered the linear residual at all; else the
    sample ends with `RootStatus.SINGULAR`.

    Args:
        linear_solver: What solves the linear systems; `GMRES()` when None. Its preconditioner, if it has one, sees the
            samples that are in the batch, which under `compact=True` are fewer and fewer.
        forcing: `"eisenstat_walker"` (their second choice), or a number between 0 and 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `forcing` is another word, or not between 0 and 1.

    Example:
        >>> import torch
        >>> from dyn_numerics import NewtonKrylov, root_find
        >>> def g(z):  # a boundary value problem, z'' = exp(z)
        ...     padded = torch.nn.functional.pad(z, (1, 1))
        ...     return padded[:, 2:] - 2 * z + padded[:, :-2] - 1e-4 * z.exp()
        >>> sol = root_find(g, torch.zeros(1, 99).double(), solver=NewtonKrylov(), rtol=1e-8)
        >>> sol.status[0].name, round(sol.z.min().item(), 4)
        ('CONVERGED', -0.1137)

    References:
        S. C. Eisenstat, H. F. Walker: Choosing the forcing terms in an inexact Newton method, SIAM J. Sci. Comput. 17
        (1996) 16-32, equation 2.6 and its safeguard. C. T. Kelley: Solving Nonlinear Equations with Newton's Method, SIAM
        2003, chapter 3.
    """

    differentiable = False

    def __init__(
        self,
        linear_solver: LinearSolver | None = None,
        forcing: float | Literal["eisenstat_walker"] = "eisenstat_walker",
    ) -> None:
        super().__init__()
        linear_solver = GMRES() if linear_solver is None else linear_solver
        if not isinstance(linear_solver, LinearSolver):
            raise TypeError(f"linear_solver: got {kind_of(linear_solver)}, expected a LinearSolver; try GMRES()")
        expected = "expected 'eisenstat_walker' or a number between 0 and 1"
        if isinstance(forcing, bool) or not isinstance(forcing, (Real, str)):
            raise TypeError(f"forcing: got a {type(forcing).__name__}, {expected}")
        if forcing != "eisenstat_walker" and (isinstance(forcing, str) or not 0 < forcing < 1):
            raise ValueError(f"forcing: got {forcing!r}, {expected}")
        self.linear_solver = linear_solver
        self.forcing = constant(forcing)

    def extra_repr(self) -> str:
        return f"forcing={self.forcing!r}"

    def init(self, z: Tensor, context: Context) -> Forcing:
        first = FIRST_FORCING if isinstance(self.forcing, str) else self.forcing
        return Forcing(torch.full_like(context.norm, first), context.norm)

    def step(self, f: FlatFunction, z: Tensor, carry: Forcing, context: Context) -> Proposal:
        forcing = when(context.n_steps == 0, lambda: carry.forcing, lambda: self._next_forcing(carry, context.norm))
        right = torch.where(context.running.unsqueeze(-1), context.value, 0)  # zero is solved without a product
        found = self.linear_solver.solve(JacobianOperator(f, z), right, rtol=forcing)
        rounding = 10 * torch.finfo(z.dtype).eps
        descends = found.residual < (1 - rounding) * norm_at_any_scale(right)
        correction = torch.where(descends.unsqueeze(-1), found.x, torch.nan)
        return newton_step(z, correction, Forcing(forcing, context.norm), found.n_products)

    def _next_forcing(self, last: Forcing, norm: Tensor) -> Tensor:
        if not isinstance(self.forcing, str):
            return last.forcing
        forcing = GAMMA * (norm / last.norm) ** 2
        # It does not fall much faster than before, lest it is by chance.
        slow = GAMMA * last.forcing**2
        forcing = torch.where(slow > 0.1, torch.maximum(forcing, slow), forcing)
        return forcing.clamp(10 * torch.finfo(norm.dtype).eps, LARGEST_FORCING)
