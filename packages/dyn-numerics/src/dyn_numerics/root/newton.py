"""Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.linear.dense_lu import DenseLU
from dyn_numerics.root.jacobian import Jacobian
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Newton", "newton_step"]


class Newton(RootStepper):
    """Newton's method: steps to where the linearised residual is zero.

    Converges quadratically to a root with a regular Jacobian that is near enough; a line search widens what is near enough.
    A step takes two calls of the function: one for the Jacobian, by forward-mode differentiation of all unit vectors side by
    side, and one at the next iterate. Memory for the Jacobian is `[batch, N, N]`; for large N see `NewtonKrylov`. At a
    singular Jacobian the sample ends with `RootStatus.SINGULAR`.

    Args:
        jac: Jacobian of the residual, `jac(z, *args)`: `[batch, *shape, *shape]` for a state `[batch, *shape]`, derivatives
            of outputs first, then of inputs. In `fixed_point` the residual is `h(z) - z`.

    Raises:
        TypeError: If `jac` cannot be called; in a search, if the state is a pytree and there is a `jac`.
        ValueError: In a search, if `jac` returns another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import Newton, root_find
        >>> solver = Newton(jac=lambda z: 2 * z.unsqueeze(-1))
        >>> z, stats = root_find(lambda z: z**2 - 2, torch.ones(1, 1).double(), solver=solver, rtol=1e-15, atol=1e-15)
        >>> z.item() == 2**0.5
        True

    References:
        P. Deuflhard: Newton Methods for Nonlinear Problems, Springer 2011, section 2.1.
    """

    def __init__(self, jac: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self._jacobian = Jacobian(jac)

    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        factors = DenseLU().factor(self._jacobian(f, z, context))
        return newton_step(z, DenseLU().solve_factored(factors, context.value), carry, self._jacobian.n_evals)


def newton_step(z: Tensor, correction: Tensor, carry: Any, n_evals: int | Tensor) -> Proposal:
    """Proposes to subtract a correction; where it is not finite, the Jacobian is singular.

    Args:
        z: Iterate, `[batch, N]`.
        correction: The residual, divided by the Jacobian, `[batch, N]`.
        carry: What the next step wants to know.
        n_evals: Calls of the function.
    """
    regular = torch.isfinite(correction).all(dim=-1)
    status = torch.where(regular, 0, RootStatus.SINGULAR.code)
    return Proposal(z - correction, carry, status=status, n_evals=n_evals)
