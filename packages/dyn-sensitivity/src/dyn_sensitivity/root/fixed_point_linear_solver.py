"""Linear systems as fixed points."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics import LinearOperator, LinearSolution, LinearSolver, RootStatus, RootStepper, root_find
from dyn_numerics.arguments import positive_integer
from dyn_numerics.root.by_name import FIXED_POINT_STEPPERS, root_stepper

__all__ = ["FixedPointLinearSolver"]


class FixedPointLinearSolver(LinearSolver):
    """Solves `A x = b` as the fixed point of `x + A x - b`, by a method for fixed points.

    With `A = J - 1`, where `J` is the Jacobian of a contraction or its adjoint, the map is `J x - b`, and contracts as well.
    So it is for gradients of fixed points whose forward search takes few steps. One product a step.

    Args:
        solver: The method, a name as in `dyn_numerics.fixed_point` or a `RootStepper`.
        rtol: Largest residual that counts as converged, relative to the 2-norm of `b`.
        max_steps: Greatest number of steps of a sample.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of its range.

    Example:
        >>> import torch
        >>> from dyn_numerics import MatrixOperator
        >>> from dyn_sensitivity import FixedPointLinearSolver
        >>> half = MatrixOperator(0.5 * torch.eye(2).unsqueeze(0) - torch.eye(2))
        >>> found = FixedPointLinearSolver("anderson").solve(half, torch.tensor([[1.0, 2.0]]))
        >>> [round(v, 4) for v in found.x.flatten().tolist()]
        [-2.0, -4.0]

    References:
        S. Bai, J. Z. Kolter, V. Koltun: Deep Equilibrium Models, NeurIPS 2019, section 3.1.2.
    """

    def __init__(self, solver: str | RootStepper = "anderson", rtol: float = 1e-5, max_steps: int = 200) -> None:
        super().__init__(rtol)
        self.solver = root_stepper(solver, FIXED_POINT_STEPPERS)
        self.max_steps = positive_integer("max_steps", max_steps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, max_steps={self.max_steps}"

    def run(self, operator: LinearOperator, b: Tensor, x0: Tensor | None, rtol: Tensor) -> LinearSolution:
        # What counts as zero is relative to b alone, not to the residual of a start that is good already.
        size = torch.linalg.vector_norm(b, dim=-1)
        found = root_find(
            lambda x: operator(x) - b,
            torch.zeros_like(b) if x0 is None else x0,
            solver=self.solver,
            rtol=4 * torch.finfo(b.dtype).eps,
            atol=rtol * size / b.shape[-1] ** 0.5,
            max_steps=self.max_steps,
            throw=False,
        )
        return LinearSolution(
            x=found.z,
            residual=found.residual * b.shape[-1] ** 0.5,
            converged=found.converged,
            breakdown=~found.converged & (found.status_code != RootStatus.MAX_STEPS.code),
            n_steps=found.stats.n_steps,
            n_products=found.stats.n_evals,
        )
