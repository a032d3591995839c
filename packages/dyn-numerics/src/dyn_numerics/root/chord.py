"""The chord method: Newton's with an old Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dyn_numerics.arguments import positive_integer
from dyn_numerics.linear.dense_lu import DenseLU, Factors, WrittenOutFactors
from dyn_numerics.loop import when
from dyn_numerics.root.jacobian import Jacobian
from dyn_numerics.root.newton import newton_step
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Chord"]


class Chord(RootStepper):
    """Newton's method with the factorised Jacobian of the start, or of every so many steps.

    Converges linearly, the faster the nearer the Jacobian's point is to the root; with `every` also beyond that. A step is
    one call of the function and two triangular solves, and a step with a new Jacobian is one of `Newton`.

    Args:
        every: Steps that share a Jacobian; None for all.
        jac: As in `Newton`.

    Raises:
        TypeError: As `Newton`.
        ValueError: If `every` is not a positive integer; as `Newton`.

    Example:
        >>> import torch
        >>> from dyn_numerics import Chord, root_find
        >>> z, stats = root_find(lambda z: z**2 - 2, torch.ones(1, 1).double(), solver=Chord(every=2))
        >>> round(z.item(), 6)
        1.414214

    References:
        C. T. Kelley: Iterative Methods for Linear and Nonlinear Equations, SIAM 1995, section 5.4.1; V. E. Shamanskii,
        1967, for `every`.
    """

    def __init__(self, every: int | None = None, jac: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.every = None if every is None else positive_integer("every", every, "a positive integer, or None")
        self._jacobian = Jacobian(jac)

    def extra_repr(self) -> str:
        return f"every={self.every}"

    def init(self, z: Tensor, context: Context) -> Factors | WrittenOutFactors:
        # Of regular matrices: a sample that fails in its first step is left with these.
        return DenseLU().factor(torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).repeat(len(z), 1, 1))

    def step(self, f: FlatFunction, z: Tensor, carry: Factors | WrittenOutFactors, context: Context) -> Proposal:
        age = context.n_steps if self.every is None else context.n_steps % self.every
        factors, n_evals = when(
            age == 0,
            lambda: (DenseLU().factor(self._jacobian(f, z, context)), self._jacobian.n_evals),
            lambda: (carry, 0),
        )
        return newton_step(z, DenseLU().solve_factored(factors, context.value), factors, n_evals)
