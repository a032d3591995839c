"""Gradients by the implicit function theorem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from dyn_numerics import (
    GMRES,
    Anderson,
    BiCGStab,
    DenseLU,
    FixedPointIteration,
    LinearOperator,
    LinearSolution,
    LinearSolver,
    RootSolution,
)
from dyn_numerics.arguments import kind_of
from dyn_numerics.by_name import by_name
from dyn_numerics.root.residual import Residual
from dyn_numerics.transforms import any_lane, in_forward_mode, under_transform, under_vmap
from dyn_sensitivity.ode.compiled_field import module_of
from dyn_sensitivity.root.compiled_implicit_function import compiled_root
from dyn_sensitivity.root.fixed_point_linear_solver import FixedPointLinearSolver
from dyn_sensitivity.root.implicit_function import implicit_root
from dyn_sensitivity.root.newton_correction import corrected_root
from dyn_sensitivity.root.parametric_residual import ParametricResidual
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity
from dyn_sensitivity.root.unused_inputs import with_zeros

__all__ = ["LINEAR_SOLVERS", "ImplicitDifferentiation"]

LARGEST_DENSE = 64

LINEAR_SOLVERS: Mapping[str, Callable[[], LinearSolver]] = {
    "dense": DenseLU,
    "gmres": GMRES,
    "bicgstab": BiCGStab,
    "anderson": lambda: FixedPointLinearSolver(Anderson()),
    "fixed_point": lambda: FixedPointLinearSolver(FixedPointIteration()),
}
"""What `linear_solver=` may be called, and what makes it."""


class ImplicitDifferentiation(RootSensitivity):
    """Differentiates the equation that a root solves, not the search for it.

    With `f(z, theta) = 0`, which is `g(z)` or `h(z) - z`, and its Jacobian `J`, the root moves by `dz = -J^-1 df`. A gradient
    `w` of the root therefore costs one linear system `J^H u = w` for each sample, and goes on from `f` as `-u`.

    It is *exact* at a root, and *approximate* as far as the root and the linear system are: its error is of the order of both
    tolerances. It does not depend on how the root was found: any method, line search or `compact` will do, and neither the
    start nor the parameters of a method get a gradient. Memory is that of one evaluation of the function.

    The root is evaluated once more, with its graph, so that gradients reach whatever that evaluation does: `args`, parameters
    and all else the function captures, under the caller's autocast, in `train()` as in `eval()`. Tensors in `args` and
    parameters of modules that it holds get zeros if it does not depend on them. Gradients can be differentiated again, as
    often as you like; the function is then evaluated again, and has to be the same. `torch.func` and forward mode work by the
    Jacobians, `[batch, N, N]`. Inside of `torch.compile` there are first-order gradients in reverse mode.

    A sample that has not converged is differentiated at its best iterate. One whose residual is not finite, or whose linear
    system has no solution, adds nothing to any gradient; its neighbours do not notice.

    Args:
        linear_solver: What solves the linear systems: `"dense"` (by the Jacobian matrix), `"gmres"`, `"bicgstab"`, of a
            fixed point also `"anderson"` or `"fixed_point"` (by the iteration `u = J^H u - w` of the map's own Jacobian), or
            a `LinearSolver`. `"dense"` for up to 64 unknowns and `"gmres"` beyond when None.
        rtol: Largest residual of a linear system, relative to the 2-norm of `w`. When None it is that of the
            `linear_solver` where you give one of your own, and `sqrt(eps)` of the state's dtype elsewhere.
        warm_start: Whether an iterative solver starts from the last solution, where its shape is the same: for training
            on the same samples in the same order, in small steps.

    Attributes:
        last: What the last linear solve of a backward pass found, None before; its `residual`, `converged` and `n_steps` are
            those of each sample.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no linear solver of that name, or `rtol` is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import ImplicitDifferentiation, fixed_point
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> sensitivity = ImplicitDifferentiation("gmres")
        >>> z, stats = fixed_point(lambda z: a * z + 1, torch.zeros(1, 1), sensitivity=sensitivity)  # 1 / (1 - a)
        >>> z.sum().backward()
        >>> round(a.grad.item(), 3)
        4.0
        >>> sensitivity.last.converged
        tensor([True])

    References:
        - S. Bai, J. Z. Kolter, V. Koltun: Deep Equilibrium Models, NeurIPS 2019, theorem 1.
        - M. Blondel et al.: Efficient and Modular Implicit Differentiation, NeurIPS 2022.
    """

    def __init__(
        self,
        linear_solver: str | LinearSolver | None = None,
        *,
        rtol: float | None = None,
        warm_start: bool = False,
    ) -> None:
        if rtol is not None and (isinstance(rtol, bool) or not isinstance(rtol, Real)):
            raise TypeError(f"rtol: got {kind_of(rtol)}, expected a number, or None")
        if rtol is not None and not 0 < rtol < float("inf"):
            raise ValueError(f"rtol: got {rtol}, expected a positive number, or None")
        if not isinstance(warm_start, bool):
            raise TypeError(f"warm_start: got {kind_of(warm_start)}, expected a truth value")
        self.linear_solver = _linear_solver(linear_solver)
        self.rtol = rtol
        self.warm_start = warm_start
        self.last: LinearSolution | None = None
        self._own_rtol = isinstance(linear_solver, LinearSolver)

    def __repr__(self) -> str:
        return f"ImplicitDifferentiation({self.linear_solver!r}, rtol={self.rtol}, warm_start={self.warm_start})"

    def solve(self, problem: RootProblem) -> RootSolution:
        """As `RootSensitivity.solve`.

        Raises:
            ValueError: If derivatives are wanted by a transform or in forward mode, and a linear solver was chosen that
                iterates.
        """
        return problem.differentiate(partial(self._root, problem.f))

    def _root(self, f: Callable[..., Any], residual: Residual, z: Tensor) -> Tensor:
        """The root with its derivatives, `[batch, N]`."""
        solve = partial(self._solve_linear, eps=residual.layout.eps)
        if torch.compiler.is_compiling():
            module = module_of(f)
            equations = ParametricResidual(residual, [] if module is None else [module])
            dense = isinstance(self._solver_for(z), DenseLU)
            root = corrected_root(residual, z) if dense else compiled_root(residual, z, solve, equations)
            return with_zeros(root, equations.inputs)
        if not (under_transform() or in_forward_mode()):
            return implicit_root(f, residual, z, solve)
        if not isinstance(self.linear_solver, DenseLU | None):
            raise ValueError(
                f"linear_solver: got {self.linear_solver} under torch.func or in forward mode, whose derivatives are found by "
                f"the Jacobian matrix; use 'dense' or None, or torch.autograd"
            )
        return corrected_root(residual, z)

    def _solver_for(self, like: Tensor) -> LinearSolver:
        """The solver of linear systems for vectors `[batch, N]`."""
        if self.linear_solver is not None:
            return self.linear_solver
        return DenseLU() if like.shape[-1] <= LARGEST_DENSE else GMRES()

    def _solve_linear(self, operator: LinearOperator, b: Tensor, eps: float) -> Tensor:
        """Solves a linear system of derivatives, warns where that fails, and keeps what it knows of it."""
        solver, last = self._solver_for(b), self.last
        rtol = eps**0.5 if self.rtol is None and not self._own_rtol else self.rtol
        compiling, many = torch.compiler.is_compiling(), under_vmap()
        warm = self.warm_start and not (compiling or many) and last is not None and _alike(last.x, b)
        found = solver.solve(operator, b, last.x if warm and last else None, rtol=rtol)
        solved, given = torch.isfinite(found.x).all(-1), torch.isfinite(b).all(-1)
        x = torch.where(solved.unsqueeze(-1), found.x, 0)
        if not compiling:
            if any_lane(~found.converged & given):
                _warn(solver, found, b, given, many)
            if not many:
                self.last = found._replace(x=x)
        # What is not finite stays so, as anywhere in PyTorch; loss scaling in mixed precision counts on it.
        return torch.where(given.unsqueeze(-1), x, torch.nan)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _warn(solver: LinearSolver, found: LinearSolution, b: Tensor, given: Tensor, many: bool) -> None:
    which = "some samples"
    if not many:
        failed = ~found.converged & given
        worst = (found.residual / vector_norm(b, dim=-1))[failed].nan_to_num(torch.inf).amax()
        which = (
            f"{int(failed.sum())} of {failed.numel()} samples, with a relative residual of {worst.item():.2g} at worst,"
        )
    warnings.warn(
        f"sensitivity: the linear system of a gradient was not solved for {which} by {solver}; those with a singular Jacobian "
        f"add nothing to the gradient, the others what was found. Try ImplicitDifferentiation('dense'), GMRES with a larger "
        f"restart or a preconditioner as its linear_solver, or a larger rtol",
        stacklevel=2,
    )


def _linear_solver(linear_solver: str | LinearSolver | None) -> LinearSolver | None:
    if linear_solver is None:
        return None
    expected = "a name, a dyn_numerics.LinearSolver or None"
    return by_name("linear_solver", linear_solver, LINEAR_SOLVERS, LinearSolver, expected)
