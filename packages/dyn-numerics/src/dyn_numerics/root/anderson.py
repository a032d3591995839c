"""Anderson acceleration."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive, positive_integer
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.root.history import combination, products, write
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Anderson"]


class Mixed(NamedTuple):
    """What Anderson acceleration remembers.

    Attributes:
        steps: Changes of `z + damping * f(z)` in the last steps, `[batch, m, N]`.
        values: Changes of `f(z)`, `[batch, m, N]`.
        gram: Their products with each other, `[batch, m, m]`.
        last_step: `z + damping * f(z)` of the last iterate, `[batch, N]`.
        last_value: `f(z)` of the last iterate, `[batch, N]`.
    """

    steps: Tensor
    values: Tensor
    gram: Tensor
    last_step: Tensor
    last_value: Tensor


class Anderson(RootStepper):
    """Anderson acceleration (type II): the step whose residual is least in the span of the last m changes.

    With the changes of the residual `dF` and of the damped iterates `dG` as columns, `gamma` minimises `|f - dF gamma|`,
    and the next iterate is `z + damping f - dG gamma`. One evaluation a step, and no Jacobian. Without memory it is
    `FixedPointIteration`; on linear problems it is as good as GMRES.

    Args:
        m: How many changes are remembered; a small number, 3 to 10.
        damping: How much of the residual is added.
        ridge: Regularisation of the least-squares problem, relative to each change; at least 10 eps, since its normal
            equations are solved.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is not positive.

    Example:
        >>> import torch
        >>> from dyn_numerics import Anderson, fixed_point
        >>> z, stats = fixed_point(torch.cos, torch.ones(1, 1).double(), solver=Anderson(m=3), rtol=1e-10, atol=1e-10)
        >>> round(z.item(), 10), stats.n_steps.item() < 10
        (0.7390851332, True)

    References:
        D. G. Anderson: Iterative procedures for nonlinear integral equations, J. ACM 12 (1965) 547-560. H. F. Walker,
        P. Ni: Anderson acceleration for fixed-point iterations, SIAM Journal on Numerical Analysis 49 (2011) 1715-1735.
    """

    def __init__(self, m: int = 6, damping: float = 1.0, ridge: float = 1e-12) -> None:
        super().__init__()
        self.m = positive_integer("m", m)
        self.damping = positive("damping", damping, "a positive number")
        self.ridge = positive("ridge", ridge, "a positive number")

    def extra_repr(self) -> str:
        return f"m={self.m}, damping={self.damping:g}, ridge={self.ridge:g}"

    def init(self, z: Tensor, context: Context) -> Mixed:
        ring = z.new_zeros(len(z), self.m, z.shape[-1])
        return Mixed(ring, ring.clone(), z.new_zeros(len(z), self.m, self.m), z, context.value)

    def step(self, f: FlatFunction, z: Tensor, carry: Mixed, context: Context) -> Proposal:
        value = context.value
        step = z + self.damping * value
        steps, values, gram, last_step, last_value = carry
        # The first write is of no change, and is overwritten once all places are taken.
        place = (context.n_steps - 1) % self.m
        change = value - last_value
        steps, values = write(steps, place, step - last_step), write(values, place, change)
        column, target = products(values, change), products(values, value)
        gram = write(write(gram, place, column.conj()).mT, place, column).mT
        gamma = self._least_squares(gram, target)
        return Proposal(step - combination(gamma, steps), Mixed(steps, values, gram, step, value))

    def _least_squares(self, gram: Tensor, target: Tensor) -> Tensor:
        """The combination of changes that is nearest to the residual, `[batch, m]`."""
        size = gram.diagonal(dim1=-2, dim2=-1).real
        scale = torch.where(size > 0, size, 1).rsqrt()  # a place that is empty has the solution 0
        ridge = max(self.ridge, 10 * torch.finfo(real_dtype(gram.dtype)).eps)
        correlation = gram * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        regular = correlation + torch.diag_embed(torch.where(size > 0, ridge, 1.0).to(gram.dtype))
        factor, _ = torch.linalg.cholesky_ex(regular)
        gamma = torch.cholesky_solve((scale * target).unsqueeze(-1), factor).squeeze(-1)
        return scale * gamma
