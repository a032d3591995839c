"""Products with the conjugate transpose of a Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["pullback"]


def pullback(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the function `w -> J^H w`, where `J` is the Jacobian of `f` at `x`.

    `f` is called once, here. Inside of `torch.compile` it is called for every product, since there a loop can not hold on
    to a graph that was built outside of it.

    Args:
        f: Maps `[*lead, N]` to `[*lead, N]`; holomorphic if complex.
        x: Where it is differentiated, `[*lead, N]`.

    Example:
        >>> import torch
        >>> from dyn_numerics.linear.pullback import pullback
        >>> pullback(lambda x: x * x, torch.tensor([1j, 3]))(torch.tensor([1 + 0j, 1]))
        tensor([0.-2.j, 6.+0.j])
    """
    if torch.compiler.is_compiling():
        return lambda w: _product(torch.func.vjp(f, x)[1], w)
    back = torch.func.vjp(f, x)[1]
    return lambda w: _product(back, w)


def _product(back: Callable[[Tensor], tuple[Tensor]], w: Tensor) -> Tensor:
    # Gradients of complex numbers are conjugate in torch, so that this is the conjugate transpose already.
    (product,) = back(w)
    return product
