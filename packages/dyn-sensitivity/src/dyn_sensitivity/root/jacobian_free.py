"""Gradients through one evaluation at the fixed point."""

from __future__ import annotations

from dyn_sensitivity.root.phantom import Phantom

__all__ = ["JacobianFree"]


class JacobianFree(Phantom):
    """Backpropagates through one evaluation of the map at its fixed point, as if its Jacobian were zero.

    The gradient is *biased*: of the Neumann series it has the first term alone. It is a direction of descent where the map
    contracts strongly enough, costs one evaluation with its graph, and solves nothing. Everything else is as in `Phantom`,
    of which it is one whole step.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import fixed_point
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> z, stats = fixed_point(lambda z: a * z + 1, torch.zeros(1, 1), sensitivity="jacobian_free")
        >>> z.sum().backward()
        >>> round(a.grad.item(), 3)  # of 4
        2.0

    References:
        S. W. Fung, H. Heaton, Q. Li, D. McKenzie, S. Osher, W. Yin: JFB: Jacobian-Free Backpropagation for Implicit Networks,
        AAAI 2022.
    """

    def __init__(self) -> None:
        super().__init__(steps=1)

    def __repr__(self) -> str:
        return "JacobianFree()"
