"""What a computation asks of the machine, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dyn_sensitivity.live_bytes import LiveBytes

__all__ = ["CountOperations", "gradient_bytes", "peak_bytes"]

# Views are told by their schema. These compute nothing either, and have none that says so.
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
FREE = {"_unsafe_view", "is_same_size", "set_", *ALLOCATIONS}
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select"}
READING_METHODS = {torch.Tensor.tolist, torch.Tensor.numpy}  # these never reach an operation
OVERWRITES = {"copy_", "fill_", "zero_"}  # their target is written, not read


class CountOperations(LiveBytes):
    """Counts, within a `with` block, what every operation of torch does, and weighs the tensors made there.

    Attributes:
        computes: Operations that compute; views and allocations are none.
        reads: Values that the host waits for: `item`, `bool`, `tolist`, `equal`, shapes that depend on values, moves
            from a device to the host.
        moved: Bytes that those operations read and write, as if each met its operands in memory once.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.operations import CountOperations
        >>> x = torch.ones(1000)
        >>> with CountOperations() as counts:
        ...     y = (x + x)[:10].sum().item()
        >>> counts.computes, counts.reads, counts.moved, counts.peak
        (2, 1, 12044, 4004)
    """

    def __init__(self) -> None:
        super().__init__()
        self.computes = 0
        self.reads = 0
        self.moved = 0
        self._methods = _CountReadingMethods(self)

    def __enter__(self) -> CountOperations:
        super().__enter__()
        self._methods.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        self._methods.__exit__(*raised)  # type: ignore[no-untyped-call]
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        operands = _tensors(args[1:] if name in OVERWRITES else args)
        operands += _tensors([value for key, value in kwargs.items() if key != "out"])
        result = super().__torch_dispatch__(func, types, args, kwargs)
        made = _tensors(result)
        if name in READS or _selects(name, args) or _comes_to_the_host(operands, made):
            self.reads += 1
        elif name not in FREE and not _is_view(func):
            self.computes += 1
            self.moved += sum(tensor.nbytes for tensor in (*operands, *made))
        return result


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by some work, without gradient, take at a time.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.operations import peak_bytes
        >>> peak_bytes(lambda: [torch.ones(10).double() for _ in range(3)])
        280
    """
    with torch.no_grad(), CountOperations() as counts:
        work()
    return counts.peak


def gradient_bytes(loss: Callable[[], Tensor], inputs: Sequence[Tensor]) -> tuple[int, int]:
    """The bytes of the tensors that are alive between a loss and its backward pass, and the most of both passes.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.operations import gradient_bytes
        >>> x = torch.ones(1000, requires_grad=True)
        >>> gradient_bytes(lambda: x.exp().sum(), [x])
        (4004, 8008)
    """
    with LiveBytes() as memory:
        value = loss()
        kept = memory.live
        torch.autograd.grad(value, inputs)
        return kept, memory.peak


class _CountReadingMethods(TorchFunctionMode):
    """Counts the methods of tensors that read without an operation."""

    def __init__(self, counts: CountOperations) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._counts.reads += func in READING_METHODS
        return func(*args, **(kwargs or {}))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_view(func: Any) -> bool:
    """Whether results share the memory of operands without having written to it."""
    shared = [result.alias_info for result in func._schema.returns if result.alias_info is not None]
    return bool(shared) and not any(alias.is_write for alias in shared)


def _selects(name: str, args: Sequence[Any]) -> bool:
    """Whether a mask says which elements are meant, so that somebody has to count them."""
    masked = name in {"index", "index_put", "index_put_"}
    return masked and any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1]))


def _comes_to_the_host(operands: Iterable[Tensor], made: Iterable[Tensor]) -> bool:
    return any(tensor.device.type == "cpu" for tensor in made) and any(
        tensor.device.type not in ("cpu", "meta") and tensor.dim() for tensor in operands
    )
