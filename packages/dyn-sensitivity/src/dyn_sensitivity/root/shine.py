"""Gradients by the inverse Jacobian that Broyden's method has learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics import Broyden, Context, Proposal, RootSolution, RootStepper
from dyn_numerics.root.broyden import Updates
from dyn_numerics.root.by_name import FIXED_POINT_STEPPERS, ROOT_STEPPERS, root_stepper
from dyn_numerics.root.residual import Residual
from dyn_numerics.root.root_stepper import FlatFunction
from dyn_sensitivity.root.root_problem import RootProblem
from dyn_sensitivity.root.root_sensitivity import RootSensitivity

__all__ = ["Shine"]


class Shine(RootSensitivity):
    """Takes the inverse Jacobian of the forward search for the true one: the gradient solves no linear system (SHINE).

    It is for searches by Broyden's method, which keeps an inverse of low rank; a gradient costs one evaluation with its graph
    and one product with that inverse. The gradient is *biased*: the inverse is right along the steps that were taken, and
    converges to the true one with no tolerance. The nearer Broyden's Jacobian was to the truth at the start, as with
    `jacobian="exact"`, and the more steps there were, the better.

    Gradients reach all that PyTorch can see but the start. Double backward, `torch.func` and forward mode work, all of them
    with the same bias; `torch.compile` does not, nor does `compact`.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import fixed_point
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> z, stats = fixed_point(lambda z: a * z + 1, torch.zeros(1, 1), solver="broyden", sensitivity="shine")
        >>> z.sum().backward()
        >>> round(a.grad.item(), 3)  # exact, in one dimension
        4.0

    References:
        Z. Ramzi, F. Mannel, S. Bai, J.-L. Starck, P. Ciuciu, T. Moreau: SHINE: SHaring the INverse Estimate from the forward
        pass for bi-level optimization and implicit models, ICLR 2022.
    """

    def __repr__(self) -> str:
        return "Shine()"

    def solve(self, problem: RootProblem) -> RootSolution:
        """As `RootSensitivity.solve`.

        Raises:
            ValueError: If the search is not by Broyden's method, is compact or compiled, or has taken no step.
        """
        if torch.compiler.is_compiling() or problem.options["compact"]:
            where = "torch.compile" if torch.compiler.is_compiling() else "compact=True"
            raise ValueError(
                f"sensitivity: got 'shine' with {where}, which does not keep the inverse of all samples; use 'implicit'"
            )
        named = FIXED_POINT_STEPPERS if problem.is_fixed_point else ROOT_STEPPERS
        method = root_stepper(problem.options["solver"], named)
        if not isinstance(method, Broyden):
            raise ValueError(
                f"solver: got {method} with sensitivity='shine', expected Broyden's method, whose inverse it uses; try "
                f"solver='broyden', or sensitivity='implicit'"
            )
        watched = _Remembering(method)

        def moved(residual: Residual, z: Tensor) -> Tensor:
            step = watched.inverse_product(residual(z))
            return z - (step - step.detach())

        return replace(problem, options={**problem.options, "solver": watched}).differentiate(moved)


class _Remembering(RootStepper):
    """Broyden's method, which keeps what it has learnt of every sample until that ended."""

    def __init__(self, method: Broyden) -> None:
        super().__init__()
        self.method = method
        self._learnt: Updates | None = None

    def init(self, z: Tensor, context: Context) -> Updates:
        return self.method.init(z, context)

    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        proposal = self.method.step(f, z, carry, context)
        found: Updates = proposal.carry
        place = int(context.n_steps) % (self.method.memory - 1)
        known = self._learnt
        if known is None:
            known = found._replace(u=torch.zeros_like(found.u), v=torch.zeros_like(found.v))
        runs = context.running.reshape(-1, 1, 1)
        if place == 0:  # the method begins anew
            known = known._replace(u=known.u.masked_fill(runs, 0), v=known.v.masked_fill(runs, 0))
            if isinstance(found.inverse, Tensor):
                known = known._replace(inverse=torch.where(runs, found.inverse, known.inverse))
        for kept, now in ((known.u, found.u), (known.v, found.v)):
            kept[:, place] = torch.where(runs[:, 0], now[:, place], kept[:, place])
        self._learnt = known
        return proposal

    def inverse_product(self, vector: Tensor) -> Tensor:
        """The inverse Jacobian times a vector, both `[batch, N]`.

        Raises:
            ValueError: If no step was taken.
        """
        if self._learnt is None:
            raise ValueError(
                "z0: solves the equations with sensitivity='shine', so that Broyden's method took no step and learnt no "
                "inverse; start elsewhere, or use 'implicit'"
            )
        # A sample that failed has no part in a gradient, and must not bring NaN into it.
        finite: Updates = tree_map_only(
            Tensor, lambda leaf: torch.nan_to_num(leaf.detach(), 0.0, 0.0, 0.0), self._learnt
        )
        return finite.product(vector, self.method.memory - 1)
