"""A vector field in two parts, for methods that treat them differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from dyn_numerics.arguments import kind_of

__all__ = ["Part", "Split", "SplitField"]

Part = Literal["a", "b"]
"""One function of a `SplitField`."""

Split = Literal["partitioned", "additive"]
"""What the two parts make of a field: the slopes of two halves of the state, or a sum."""


class SplitField(nn.Module):
    """A vector field in two parts.

    What the parts mean is up to the method. To a symplectic one (`Verlet`, `Yoshida4`) the state is a pair `(q, p)`, and

        dq/dt = a(t, p, *args),
        dp/dt = b(t, q, *args).

    Each half is a tensor or a pytree of tensors, in shapes of its own. To an implicit-explicit one the state is any, and

        dx/dt = a(t, x, *args) + b(t, x, *args)

    with a stiff part `a`, which is solved implicitly, and another part `b`, which is not.

    Both are called as a field is: the time comes in the real dtype of the state, and under `stepping="per_sample"` it
    broadcasts against what comes with it if that is a tensor, and is `[batch]` if that is a pytree.

    Args:
        a: Function or module `a(t, p, *args)`, which returns the slope of `q` in its structure and shapes; or `a(t, x, *args)`.
        b: Function or module `b(t, q, *args)`, which returns the slope of `p`; or `b(t, x, *args)`.

    Raises:
        TypeError: If one of them can't be called.

    Example:
        >>> import torch
        >>> from dyn_numerics import SplitField, odeint
        >>> pendulum = SplitField(lambda t, p: p, lambda t, q: -torch.sin(q))
        >>> start = torch.tensor([1.0]), torch.tensor([0.0])
        >>> t, (q, p) = odeint(pendulum, start, [0.0, 100.0], solver="verlet", step_size=0.1)
        >>> energy = p**2 / 2 - torch.cos(q)
        >>> bool((energy[-1] - energy[0]).abs() < 1e-3)
        True

    References:
        Hairer, Lubich, Wanner: Geometric Numerical Integration, 2nd ed. (2006), sections I.1 and II.5.
    """

    def __init__(self, a: Callable[..., Any], b: Callable[..., Any]) -> None:
        super().__init__()
        for name, part in (("a", a), ("b", b)):
            if not callable(part) or isinstance(part, type):
                raise TypeError(f"{name}: got {kind_of(part)}, expected a function or module")
        self.a = a
        self.b = b
