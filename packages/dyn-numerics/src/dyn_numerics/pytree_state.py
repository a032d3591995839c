"""States of any structure as one flat tensor.

The numerics work on a vector, or on one for each sample. A `StateLayout` remembers how the user's state, a tensor or a
pytree of tensors, lies in it: a single tensor is viewed, several are concatenated in their common dtype and cast back
when they leave.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_structure, tree_unflatten

__all__ = ["StateLayout"]

_DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex128, torch.complex64}


class StateLayout:
    """How a pytree of tensors lies in one vector of N elements, or in vectors `[batch, N]`.

    Args:
        state: The pytree that is taken as the pattern; only structure, shapes, dtypes and device are kept.
        name: The argument's name, for messages.
        batched: Whether the first dimension of every leaf counts samples, each with a vector of its own.

    Attributes:
        dtype: Dtype of the vector, the common dtype of all leaves.
        device: Device of all leaves.
        lead: Shape of the samples: `[batch]`, or `[]` for a single vector.
        size: N, the number of elements of all leaves in a vector.
        eps: Relative spacing of numbers in the coarsest leaf.

    Raises:
        TypeError: If a leaf is not a tensor, or not of a floating or complex dtype.
        ValueError: If there is no leaf, the leaves are on different devices, or samples are to be counted and the leaves
            do not lead with one batch.
    """

    def __init__(self, state: Any, name: str, batched: bool = False) -> None:
        self._name = name
        self.is_single_tensor = isinstance(state, Tensor)
        leaves: list[Any] = [state]
        self.structure: TreeSpec | None = None
        if not self.is_single_tensor:
            leaves, self.structure = tree_flatten(state)
        if not leaves:
            raise ValueError(f"{name}: got an empty pytree, expected at least one tensor")
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name}: got a {type(leaf).__name__}, expected a tensor or a pytree of tensors; "
                    f"try torch.as_tensor(...)"
                )
            if leaf.dtype not in _DTYPES:
                raise TypeError(
                    f"{name}: got dtype {leaf.dtype}, expected a floating or complex dtype (float64 to float16); "
                    f"try {name}.float()"
                )
        self.lead = torch.Size()
        if batched:
            sizes = {leaf.shape[0] if leaf.dim() else None for leaf in leaves}
            if len(sizes) != 1 or None in sizes:
                raise ValueError(
                    f"{name}: got leaves of shapes {[list(leaf.shape) for leaf in leaves]} for samples that are solved one "
                    f"by one, expected every one to lead with the same batch; for one sample try {name}.unsqueeze(0)"
                )
            self.lead = leaves[0].shape[:1]
        self.shapes = [
            tuple(leaf.shape[len(self.lead) :]) for leaf in leaves
        ]  # a loop in torch.compile takes no torch.Size
        self.dtypes = [leaf.dtype for leaf in leaves]
        self.dtype = reduce(torch.promote_types, self.dtypes)
        self.eps = max(torch.finfo(dtype).eps for dtype in self.dtypes)
        self.device: torch.device = leaves[0].device
        if any(leaf.device != self.device for leaf in leaves):
            raise ValueError(
                f"{name}: got leaves on {sorted({str(leaf.device) for leaf in leaves})}, expected one device"
            )
        self.sizes = [prod(shape) for shape in self.shapes]
        self.size = sum(self.sizes)
        self._is_flat = self.is_single_tensor and len(self.shapes[0]) == 1

    def leaves(self, state: Any) -> list[Any]:
        """The leaves of a state of this structure; by key in a dictionary, whatever its order.

        Raises:
            ValueError: If the structure differs.
        """
        return [state] if self.structure is None else self.structure.flatten_up_to(state)

    def flatten(self, state: Any) -> Tensor:
        """Lays a state of this layout out as vectors `[*lead, N]`; a bare tensor is viewed, not copied."""
        if self.is_single_tensor:
            if self._is_flat:
                return state  # type: ignore[no-any-return]
            lead = state.shape[: state.dim() - len(self.shapes[0])]
            return state.reshape(*lead, self.size)  # type: ignore[no-any-return]
        leaves = self.leaves(state)
        flat = [
            leaf.reshape(*leaf.shape[: leaf.dim() - len(shape)], size)
            for leaf, shape, size in zip(leaves, self.shapes, self.sizes, strict=True)
        ]
        return torch.cat([leaf.to(self.dtype) for leaf in flat], dim=-1)

    def pair(self) -> tuple[StateLayout, StateLayout]:
        """The layouts of the halves of a state that is a pair `(q, p)`.

        Raises:
            TypeError: If it is none.
            ValueError: If a half has no leaf.
        """
        like = self.unflatten(torch.empty(*self.lead, self.size, dtype=self.dtype, device=self.device))
        if not (isinstance(like, (tuple, list)) and len(like) == 2):
            got = "a tensor" if self.is_single_tensor else _words(self.structure)
            raise TypeError(f"{self._name}: got {got}, expected a pair (q, p), which the method steps in turns")
        first, second = (StateLayout(half, f"{self._name}[{i}]", bool(self.lead)) for i, half in enumerate(like))
        return first, second

    def unflatten(self, vector: Tensor, cast: bool = True) -> Any:
        """Reads a state out of vectors `[..., N]`; every leaf gets the leading dimensions.

        Args:
            vector: The vectors.
            cast: Whether the leaves get back their dtypes, or stay in the precision of the vectors.
        """
        if self.is_single_tensor:
            if self._is_flat:
                return vector
            shape = self.shapes[0]
            return vector.unflatten(-1, shape) if shape else vector.squeeze(-1)  # type: ignore[no-untyped-call]
        lead = vector.shape[:-1]
        parts = torch.split(vector, self.sizes, dim=-1)
        leaves = [
            (part.real if part.is_complex() and not dtype.is_complex else part).reshape((*lead, *shape))
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        if cast:
            leaves = [leaf.to(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]
        return tree_unflatten(leaves, self.structure)  # type: ignore[arg-type]

    def spread(self, value: Tensor) -> Tensor:
        """Values `[*lead]` as functions of the state receive them: they broadcast against a state that is a tensor."""
        if self.is_single_tensor and value.dim():
            return value.reshape((*value.shape, *[1] * len(self.shapes[0])))
        return value

    def finite(self, vectors: Tensor) -> Tensor:
        """Whether the states in vectors `[..., N]` are finite in every leaf and its own dtype, `[...]`."""
        lead = vectors.shape[:-1]
        leaves = self.leaves(self.unflatten(vectors))
        finite = [
            torch.isfinite(leaf).reshape(*lead, n).all(dim=-1) for leaf, n in zip(leaves, self.sizes, strict=True)
        ]
        return torch.stack(finite).all(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        if self.structure is None:
            return self.__dict__
        # torch's own way to load a structure warns of a class that it deprecates; a pattern says as much.
        pattern = tree_unflatten(range(len(self.shapes)), self.structure)
        return {**self.__dict__, "structure": pattern}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.structure is not None:
            self.structure = tree_structure(self.structure)

    def check(self, name: str, state: Any, lead: torch.Size | None = None, like: str = "as the state") -> None:
        """Refuses a state of another layout.

        Args:
            name: What returned the state, for the message.
            state: The state.
            lead: Shape of the samples if it is not that of the layout.
            like: What has this layout, for the message.

        Raises:
            TypeError: If structure or dtype differ.
            ValueError: If shape or device differ.
        """
        try:
            leaves = self.leaves(state)
        except ValueError:
            raise TypeError(f"{name}: returned {_describe(state)}, expected {_words(self.structure)} {like}") from None
        lead = self.lead if lead is None else lead
        for leaf, inner, dtype in zip(leaves, self.shapes, self.dtypes, strict=True):
            shape = (*lead, *inner)
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name}: returned a {type(leaf).__name__}, expected a tensor")
            if leaf.shape != shape:
                raise ValueError(f"{name}: returned shape {list(leaf.shape)}, expected {list(shape)} {like}")
            if leaf.dtype != dtype:
                raise TypeError(f"{name}: returned dtype {leaf.dtype}, expected {dtype} {like}; cast in {name}")
            if leaf.device != self.device:
                raise ValueError(f"{name}: returned device {leaf.device}, expected {self.device} {like}")


def _describe(state: Any) -> str:
    return "a tensor" if isinstance(state, Tensor) else _words(tree_structure(state))


def _words(structure: TreeSpec | None) -> str:
    return " ".join(str(structure).split())
