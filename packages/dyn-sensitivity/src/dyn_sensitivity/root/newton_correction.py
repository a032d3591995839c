"""The derivatives of a root under function transforms, in forward mode and inside of torch.compile."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics import DenseLU, FunctionOperator
from dyn_numerics.linear.pullback import pullback
from dyn_numerics.root.residual import Residual
from dyn_numerics.transforms import n_differentiations, without_transforms

__all__ = ["corrected_root"]


def corrected_root(f: Residual, z: Tensor) -> Tensor:
    """A root with its derivatives, `[batch, N]`, by corrections with one Jacobian matrix that are zero.

    The chord method `z - J^-1 f(z)` with the Jacobian of the root itself, held fixed, leaves the root where it is, and gives
    it one more order of derivatives each time. All of it is ordinary operations, which every transform knows. There are as
    many corrections as transforms that differentiate, and two for what may be differentiated outside of them; of a compiled
    program, which has first derivatives alone, one.

    Args:
        f: The residual.
        z: The root, without derivatives, `[batch, N]`.
    """
    root, value = z, f(z)
    if torch.compiler.is_compiling():
        n_orders = int(value.requires_grad)
    else:
        n_orders = n_differentiations() + 2 * without_transforms(value).requires_grad
    if not n_orders:
        return z
    adjoint = FunctionOperator(pullback(f, z), like=z).matrix().detach()
    lu = DenseLU()
    factors = lu.factor(adjoint.mH)
    for n in range(n_orders):
        step = lu.solve_factored(factors, value if n == 0 else f(root))
        root = root - (step - step.detach())
    return root
