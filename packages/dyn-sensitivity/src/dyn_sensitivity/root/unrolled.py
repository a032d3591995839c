"""Gradients through the steps of a search."""

from __future__ import annotations

from dyn_numerics import RootSolution
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity

__all__ = ["Unrolled"]


class Unrolled(RootSensitivity):
    """Backpropagates through the steps that were taken.

    The gradient is *exact*: that of the numbers that were computed. It converges to the root's own with the tolerances, one
    step or so behind it. It reaches all that PyTorch can see: `args`, everything that the function captures, the parameters
    of a trainable method or line search, and `z0`. It can be differentiated again, `torch.func` and forward mode work, and
    memory grows with the number of steps. A start that is a root already takes no step and has no gradient: it warns.
    `torch.compile` has none, nor have `"newton_krylov"`, `"levenberg_marquardt"` and `"bisection"`: these raise.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import root_find
        >>> a = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
        >>> z, stats = root_find(lambda z: z**2 - a, torch.ones(1, 1).double(), solver="newton", sensitivity="unrolled")
        >>> z.sum().backward()
        >>> round(a.grad.item(), 4)  # of 1 / (2 z)
        0.3536
    """

    def __repr__(self) -> str:
        return "Unrolled()"

    def solve(self, problem: RootProblem) -> RootSolution:
        return problem.search()
