"""A field's value, and its derivatives along several directions, from one call of it."""

from __future__ import annotations

import torch
from torch import Tensor

from dyn_numerics.ode.stepper import FlatField

__all__ = ["forward_products"]


def forward_products(
    f: FlatField, t: Tensor, x: Tensor, directions: Tensor, with_rate: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Differentiates a field in forward mode, along all directions at once.

    Args:
        f: Vector field on flat states, called once.
        t: Time, `[*lead]`.
        x: State, `[*lead, N]`.
        directions: Directions in the state's space, `[m, N]`, the same for all samples.
        with_rate: Whether the derivative by time is wanted.

    Returns:
        `f(t, x)`, `[*lead, N]`; the derivative by time, `[*lead, N]` or None; those along the directions, `[m, *lead, N]`.

    Example:
        >>> import torch
        >>> from dyn_numerics.ode.jacobians.forward_products import forward_products
        >>> t, x = torch.tensor(2.0), torch.tensor([1.0, 3.0])
        >>> forward_products(lambda t, x: t * x * x, t, x, torch.tensor([[0.0, 1.0]]), with_rate=True)
        (tensor([ 2., 18.]), tensor([1., 9.]), tensor([[ 0., 12.]]))
    """
    m = len(directions)
    if not (m or with_rate):
        return f(t, x), None, directions.reshape(0, *[1] * t.dim(), x.shape[-1]).expand(0, *x.shape)
    if with_rate:
        directions = torch.nn.functional.pad(directions, (0, 0, 0, 1))  # one more: it stands still while time goes on
    n = len(directions)
    moves = (torch.arange(n, device=t.device) >= m).to(t.dtype)
    moves = moves.reshape(n, *[1] * t.dim()).expand(n, *t.shape)
    directions = directions.reshape(n, *[1] * (x.dim() - 1), x.shape[-1]).expand(n, *x.shape)

    def product(t: Tensor, x: Tensor, move: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        linearised: tuple[Tensor, Tensor] = torch.func.jvp(f, (t, x), (move, direction))  # type: ignore[assignment]
        return linearised

    if torch.compiler.is_compiling():
        # The compiler takes no tangent with a dimension more than its point where sizes are symbols.
        points = t.expand(n, *t.shape), x.expand(n, *x.shape)
        values, products = torch.func.vmap(product)(*points, moves.contiguous(), directions.contiguous())
    else:
        values, products = torch.func.vmap(product, in_dims=(None, None, 0, 0))(t, x, moves, directions)
    return values[0], products[m] if with_rate else None, products[:m]
