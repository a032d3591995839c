"""Reads of tensors by the host, as they happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["HostReads"]

NUMBERS = {"__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "item", "numpy", "tolist"}
SHAPES = {"masked_select", "nonzero", "unique"}
CHECKS = {"allclose", "equal", "inverse", "linalg_cholesky", "linalg_inv", "linalg_lu_factor", "linalg_solve"}
READS = NUMBERS | SHAPES | CHECKS | {"cpu"}
"""Names of the operations whose result, shape or error message depends on values of tensors."""


class HostReads(TorchFunctionMode):
    """Writes down, on every device, what would wait on a GPU for all that was launched before.

    Attributes:
        found: Names of the operations that read, in order.

    Example:
        >>> import torch
        >>> with HostReads() as reads:
        ...     if torch.ones(()) > 0:
        ...         pass
        >>> reads.found
        ['__bool__']
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Calls the operation, and notes it if it reads."""
        name = getattr(func, "__name__", "")
        if name in READS or (name == "__getitem__" and _chooses(args[1])):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def _chooses(index: Any) -> bool:
    """Whether flags choose the elements, so that their number is not known beforehand."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
