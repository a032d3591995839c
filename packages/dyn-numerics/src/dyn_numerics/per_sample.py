"""Arguments of a field that belong to the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

__all__ = ["PerSample", "bare_arguments", "sampled_leaves", "take_samples"]


@dataclass(frozen=True, eq=False)
class PerSample:
    """An entry of `args` with one value for each sample, of which `f` receives those of the samples that still run.

    With `compact=True` finished samples leave the batch, and the field sees fewer of them. What belongs to the samples
    has to leave with them: wrap it, and `f` receives the bare values, cut to its batch. Where gradients are taken, a sample
    for which `f` has no value at its start is computed with the values of another, so that its own meet no gradient of
    what all share. Only with `stepping="per_sample"`.

    Args:
        values: A tensor or a pytree of tensors that lead with the batch.

    Raises:
        TypeError: If there is no tensor in it, or one without a first dimension.

    Example:
        >>> import torch
        >>> from dyn_numerics import PerSample, odeint
        >>> rates = torch.tensor([1.0, 100.0])
        >>> sol = odeint(
        ...     lambda t, x, rate: -rate[:, None] * x,
        ...     torch.ones(2, 1),
        ...     [0.0, 1.0],
        ...     args=(PerSample(rates),),
        ...     stepping="per_sample",
        ...     compact=True,
        ... )
        >>> [round(v, 3) for v in sol.x[-1, :, 0].tolist()]
        [0.368, 0.0]
    """

    values: Any

    def __post_init__(self) -> None:
        leaves = tree_leaves(self.values)
        if not leaves or not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves):
            raise TypeError(f"values: got {self.values!r:.60}, expected tensors that lead with the batch")

    def take(self, samples: Tensor) -> PerSample:
        """The values of some of the samples, whose indices are `[m]`."""
        return PerSample(tree_map_only(Tensor, lambda leaf: leaf[samples], self.values))


def bare_arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments as a field receives them: the values of those that belong to samples, at any depth of a structure."""
    return tuple(tree_map_only(PerSample, lambda arg: arg.values, arg) for arg in args)


def take_samples(args: Sequence[Any], samples: Tensor) -> tuple[Any, ...]:
    """Arguments of some of the samples, whose indices are `[m]`: those that belong to samples are cut to these."""
    return tuple(tree_map_only(PerSample, lambda arg: arg.take(samples), arg) for arg in args)


def sampled_leaves(args: Sequence[Any]) -> tuple[bool, ...]:
    """Which leaves of the bare arguments belong to the samples."""
    marked = tree_map(
        lambda arg: tree_map(lambda _: True, arg.values) if isinstance(arg, PerSample) else False, tuple(args)
    )
    return tuple(tree_leaves(marked))
