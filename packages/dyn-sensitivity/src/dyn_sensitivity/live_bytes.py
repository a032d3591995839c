"""The memory of tensors, as they come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import finalize

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Weighs the tensors that are made within a `with` block, on any device, in forward and backward passes.

    It sees what autograd saves for a backward pass, and what an algorithm keeps beside it: all that is alive. Tensors that
    were there before count for nothing, and views for nothing more.

    Attributes:
        live: Bytes of those that are alive.
        peak: The most that `live` has been.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.live_bytes import LiveBytes
        >>> x = torch.ones(1000, requires_grad=True)
        >>> with LiveBytes() as memory:
        ...     y = x.exp().sum()  # keeps the exponentials for the backward pass
        >>> memory.live
        4004
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._storages: set[int] = set()  # those that are alive

    def __enter__(self) -> LiveBytes:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._meet(args, kwargs, made_here=False)
        result = func(*args, **kwargs)
        self._meet(result, made_here=True)
        return result

    def _meet(self, *trees: Any, made_here: bool) -> None:
        """Notes the storages that were not known, and when they go."""
        for tensor in tree_leaves(trees):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._storages:
                size = storage.nbytes() if made_here else 0
                self._storages.add(key)
                finalize(storage, self._forget, key, size).atexit = False
                self.live += size
                self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live -= size
