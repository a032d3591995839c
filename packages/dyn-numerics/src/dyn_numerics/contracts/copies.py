"""Copies of a module, which have to do what it does."""

from __future__ import annotations

import copy
import pickle
from typing import TypeVar

from torch import nn

__all__ = ["copies"]

M = TypeVar("M", bound=nn.Module)


def copies(module: M, another: M) -> dict[str, M]:
    """A deep copy, a pickled one and one that loads the `state_dict`, by what they are called in a sentence.

    Args:
        module: What is copied.
        another: A module of the same make.

    Example:
        >>> from torch import nn
        >>> list(copies(nn.Linear(1, 1), nn.Linear(1, 1)))
        ['a deep copy', 'a pickled copy', 'one that loaded the state_dict']
    """
    another.load_state_dict(module.state_dict())
    return {
        "a deep copy": copy.deepcopy(module),
        "a pickled copy": pickle.loads(pickle.dumps(module)),
        "one that loaded the state_dict": another,
    }
