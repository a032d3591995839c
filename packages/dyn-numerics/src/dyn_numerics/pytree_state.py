"""States of any structure as one flat tensor.

The numerics work on a vector. A `StateLayout` remembers how the user's state, a tensor or a pytree of tensors, lies in
it: a single tensor is viewed, several are concatenated in their common dtype and cast back when they leave.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_structure, tree_unflatten

__all__ = ["StateLayout"]

_DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex128, torch.complex64}


class StateLayout:
    """How a pytree of tensors lies in one vector of N elements.

    Args:
        state: The pytree that is taken as the pattern; only structure, shapes, dtypes and device are kept.
        name: The argument's name, for messages.

    Attributes:
        dtype: Dtype of the vector, the common dtype of all leaves.
        device: Device of all leaves.
        size: N, the number of elements of all leaves.

    Raises:
        TypeError: If a leaf is not a tensor, or not of a floating or complex dtype.
        ValueError: If there is no leaf, or the leaves are on different devices.
    """

    def __init__(self, state: Any, name: str) -> None:
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
        self.shapes = [leaf.shape for leaf in leaves]
        self.dtypes = [leaf.dtype for leaf in leaves]
        self.dtype = reduce(torch.promote_types, self.dtypes)
        self.device: torch.device = leaves[0].device
        if any(leaf.device != self.device for leaf in leaves):
            raise ValueError(
                f"{name}: got leaves on {sorted({str(leaf.device) for leaf in leaves})}, expected one device"
            )
        self.sizes = [leaf.numel() for leaf in leaves]
        self.size = sum(self.sizes)

    @property
    def is_single_tensor(self) -> bool:
        """Whether the state is a bare tensor."""
        return self.structure == _BARE_TENSOR

    def flatten(self, state: Any) -> Tensor:
        """Lays a state of this layout out as a vector `[N]`; a bare tensor is viewed, not copied."""
        if self.is_single_tensor:
            return state.reshape(-1)  # type: ignore[no-any-return]
        leaves = self.structure.flatten_up_to(state)  # by key in a dictionary, whatever its order
        return torch.cat([leaf.reshape(-1).to(self.dtype) for leaf in leaves])

    def unflatten(self, vector: Tensor, cast: bool = True) -> Any:
        """Reads a state out of vectors `[..., N]`; every leaf gets the leading dimensions.

        Args:
            vector: The vectors.
            cast: Whether the leaves get back their dtypes, or stay in the precision of the vectors.
        """
        lead = vector.shape[:-1]
        if self.is_single_tensor:
            return vector.reshape((*lead, *self.shapes[0]))
        parts = torch.split(vector, self.sizes, dim=-1)
        leaves = [
            (part.real if part.is_complex() and not dtype.is_complex else part).reshape((*lead, *shape))
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        if cast:
            leaves = [leaf.to(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]
        return tree_unflatten(leaves, self.structure)

    def finite(self, vectors: Tensor) -> Tensor:
        """Whether the states in vectors `[T, N]` are finite in every leaf and its own dtype, `[T]`."""
        leaves = tree_leaves(self.unflatten(vectors))
        return torch.stack([torch.isfinite(leaf).reshape(len(vectors), -1).all(dim=1) for leaf in leaves]).all(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        # torch's own way to load a structure warns of a class that it deprecates; a pattern says as much.
        pattern = tree_unflatten(range(len(self.shapes)), self.structure)
        return {**self.__dict__, "structure": pattern}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, structure=tree_structure(state["structure"]))

    def check(self, name: str, state: Any) -> None:
        """Refuses a state of another layout.

        Args:
            name: What returned the state, for the message.
            state: The state.

        Raises:
            TypeError: If structure or dtype differ.
            ValueError: If shape or device differ.
        """
        try:
            leaves = self.structure.flatten_up_to(state)
        except ValueError:
            raise TypeError(
                f"{name}: returned {_describe(tree_structure(state))}, expected {_describe(self.structure)} as the state"
            ) from None
        for leaf, shape, dtype in zip(leaves, self.shapes, self.dtypes, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name}: returned a {type(leaf).__name__}, expected a tensor")
            if leaf.shape != shape:
                raise ValueError(f"{name}: returned shape {list(leaf.shape)}, expected {list(shape)} as the state")
            if leaf.dtype != dtype:
                raise TypeError(f"{name}: returned dtype {leaf.dtype}, expected {dtype} as the state; cast in {name}")
            if leaf.device != self.device:
                raise ValueError(f"{name}: returned device {leaf.device}, expected {self.device} as the state")


_BARE_TENSOR = tree_structure(torch.empty(0))


def _describe(structure: TreeSpec) -> str:
    return "a tensor" if structure == _BARE_TENSOR else " ".join(str(structure).split())
