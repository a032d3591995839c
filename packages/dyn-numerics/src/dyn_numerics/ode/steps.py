"""The steps of a solve."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Steps"]


class Steps(NamedTuple):
    """The start and the end of every accepted step; unpacks as `t, x = sol.steps`.

    Attributes:
        t: Times, `[n + 1]` in the user's time unit and in the dtype of the output times. Under `stepping="per_sample"`
            `[n + 1, batch]`, every column filled up with its last one.
        x: States there, `[n + 1, *x0.shape]` in the structure of `x0`, or what `Save(fn=...)` made of them.

    Example:
        >>> import torch
        >>> from dyn_numerics import Save, odeint
        >>> sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 0.5, 1.0], save=Save(("t_span", "steps")))
        >>> t, x = sol.steps
        >>> len(t) - 1 == sol.stats.n_accepted.item(), torch.equal(x[-1], sol.x[-1])
        (True, True)
    """

    t: Tensor
    x: Any
