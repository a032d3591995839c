"""Rows of a batch: pytrees of tensors whose first dimension counts samples, of which some are taken, put back or chosen."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["put_rows", "select_rows", "take_rows"]

T = TypeVar("T")


def take_rows(tree: T, samples: Tensor) -> T:
    """The rows of some samples.

    Args:
        tree: A pytree; tensors in it lead with the batch, and what is no tensor stays as it is.
        samples: Their indices, `[m]`.
    """
    taken: T = tree_map(lambda leaf: leaf[samples] if isinstance(leaf, Tensor) else leaf, tree)
    return taken


def put_rows(whole: T, samples: Tensor, part: T) -> T:
    """All rows, with those of some samples replaced.

    Args:
        whole: A pytree as in `take_rows`.
        samples: Their indices, `[m]`.
        part: The same structure; its tensors lead with `m`, and what is no tensor is taken from here.
    """
    replaced: T = tree_map(
        lambda all_of, new: torch.index_copy(all_of, 0, samples, new) if isinstance(new, Tensor) else new, whole, part
    )
    return replaced


def select_rows(chosen: Tensor, new: T, old: T) -> T:
    """New rows where they are chosen, old ones elsewhere.

    Args:
        chosen: Flags `[batch]`.
        new: A pytree as in `take_rows`; what is no tensor is taken from here.
        old: The same structure.
    """
    selected: T = tree_map(
        lambda a, b: torch.where(chosen.reshape(-1, *[1] * (a.dim() - 1)), a, b) if isinstance(a, Tensor) else a,
        new,
        old,
    )
    return selected
