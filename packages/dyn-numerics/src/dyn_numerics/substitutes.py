"""Problems that lend their place to another, so that nothing that is not finite is differentiated.

To select among results gives what is not selected a gradient of zero, and zero times what is not finite is NaN, in the
gradients of whatever all problems share. So a problem whose result is not wanted does something that is known to be finite:
best a step of its own, where the field's arguments for it are those that it is used to; otherwise one of another problem.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["substituted", "substitutes"]


def substitutes(wanted: Tensor) -> Tensor:
    """Which problem is computed in each place, `[batch]`: itself where its result is wanted, otherwise one of those.

    Args:
        wanted: Whose results are wanted, `[batch]`; at least one of them.
    """
    return torch.where(wanted, torch.arange(len(wanted), device=wanted.device), wanted.to(torch.int8).argmax())


def substituted(places: Tensor | None, values: Any) -> Any:
    """Tensors `[batch, ...]` in any structure with the numbers of those who take the places; as they are without.

    What is lent has no gradient: where the borrower's field is not finite it would come back as zero times that.
    """
    if places is None:
        return values
    own = places == torch.arange(len(places), device=places.device)

    def lent(value: Tensor) -> Tensor:
        return torch.where(own.reshape(-1, *[1] * (value.dim() - 1)), value, value[places].detach())

    return tree_map_only(Tensor, lent, values)
