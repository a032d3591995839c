"""Tensors that are taken out of a structure, so that others can take their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from dyn_numerics import PerSample

__all__ = ["TensorTree", "has_gradients"]

_GAP = object()


@dataclass(frozen=True)
class TensorTree:
    """A pytree with gaps where tensors were, what belongs to samples looked into.

    Attributes:
        leaves: Leaves of the tree; another tree for a `PerSample`.
        structure: Structure of the tree.
    """

    leaves: tuple[Any, ...]
    structure: TreeSpec

    @classmethod
    def of(cls, tree: Any, taken: Callable[[Tensor], bool] = lambda tensor: True) -> tuple[TensorTree, list[Tensor]]:
        """Takes tensors out of a pytree.

        Args:
            tree: The pytree, of anything.
            taken: Which tensors.

        Returns:
            The rest, and the tensors in their order.
        """
        leaves, structure = tree_flatten(tree)
        tensors: list[Tensor] = []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, PerSample):
                leaves[i], inner = cls.of(leaf.values, taken)
                tensors += inner
            elif isinstance(leaf, Tensor) and taken(leaf):
                leaves[i] = _GAP
                tensors.append(leaf)
        return cls(tuple(leaves), structure), tensors

    def put(self, tensors: Iterable[Tensor]) -> Any:
        """The pytree with other tensors in the gaps."""
        return self._filled(iter(tensors))

    def _filled(self, ahead: Iterator[Tensor]) -> Any:
        leaves = list(self.leaves)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, TensorTree):
                leaves[i] = PerSample(leaf._filled(ahead))
            elif leaf is _GAP:
                leaves[i] = next(ahead)
        return tree_unflatten(leaves, self.structure)


def has_gradients(tensor: Tensor) -> bool:
    """Whether a tensor is of a dtype that can be differentiated."""
    return tensor.is_floating_point() or tensor.is_complex()
