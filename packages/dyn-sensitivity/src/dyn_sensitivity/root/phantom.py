"""Gradients through a few damped steps at the fixed point."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics import RootSolution
from dyn_numerics.arguments import positive, positive_integer
from dyn_numerics.root.residual import Residual
from dyn_numerics.transforms import any_lane
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity

__all__ = ["Phantom"]


class Phantom(RootSensitivity):
    """Backpropagates through a few damped steps of the map from its fixed point on, and takes that for the gradient.

    The gradient is *biased*: it is that of a truncated Neumann series, and does not converge with any tolerance. With
    `T = 1 + damping (J - 1)`, where `J` is the Jacobian of the map, it lacks the share `T^steps` of the gradient, which falls
    with the number of steps where the map contracts. It costs `steps` evaluations with their graphs, solves nothing, and may
    train better than an exact gradient of a fixed point that is hardly found.

    It reaches all that PyTorch can see but the start and the method. Double backward, `torch.func`, forward mode and
    `torch.compile` work, all of them with the same bias.

    Args:
        steps: Number of steps.
        damping: How much of each step is taken.

    Raises:
        TypeError: If `damping` is not a number.
        ValueError: If an argument is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import Phantom, fixed_point
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> z, stats = fixed_point(lambda z: a * z + 1, torch.zeros(1, 1), sensitivity=Phantom(steps=3))
        >>> z.sum().backward()
        >>> a.grad  # of 4 the eighth part is missing
        tensor(3.5000)

    References:
        Z. Geng, X.-Y. Zhang, S. Bai, Y. Wang, Z. Lin: On Training Implicit Models, NeurIPS 2021, equations 7 and 8.
    """

    def __init__(self, steps: int = 5, damping: float = 1.0) -> None:
        self.steps = positive_integer("steps", steps)
        self.damping = positive("damping", damping, "a positive number, 1 for whole steps")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(steps={self.steps}, damping={self.damping:g})"

    def solve(self, problem: RootProblem) -> RootSolution:
        """As `RootSensitivity.solve`.

        Raises:
            ValueError: If a root is looked for that is no fixed point.
        """
        if not problem.is_fixed_point:
            raise ValueError(
                f"sensitivity: got {self} in root_find, expected a fixed point, since its steps are those of the map; "
                f"use 'implicit' or 'unrolled', or fixed_point"
            )
        return problem.differentiate(self._steps_from)

    def _steps_from(self, f: Residual, z: Tensor) -> Tensor:
        """The fixed point with the derivatives of the steps that start there, `[batch, N]`.

        A sample that did not converge may step to where it is not finite. It then stands still, and has no derivatives.
        """
        x = self._taken(f, z)
        finite = torch.isfinite(x.detach()).all(-1)
        if not torch.compiler.is_compiling() and any_lane(~finite):
            x = self._taken(f, z, moves=finite.unsqueeze(-1))
        return z + (x - x.detach())

    def _taken(self, f: Residual, x: Tensor, moves: Tensor | None = None) -> Tensor:
        """Where the steps lead, `[batch, N]`, of the samples that move."""
        for _ in range(self.steps):
            ahead = x + self.damping * f(x)
            x = ahead if moves is None else torch.where(moves, ahead, x)
        return x
