"""Repetition and choice: in Python, or as one operation of a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dyn_numerics.traced_transforms import find_levels_when_run
from dyn_numerics.transforms import any_lane

__all__ = ["OLDEST_TORCH", "check_compiler", "count_from_zero", "is_supported", "repeat", "when", "while_loop"]

OLDEST_TORCH = (2, 13)
"""The oldest torch whose compiler the tests of compiled solves pass on."""


def is_supported() -> bool:
    """Whether this torch can compile a solve."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST_TORCH


def check_compiler(name: str) -> None:
    """Refuses to be compiled by a torch that cannot.

    Args:
        name: What is compiled, for the message.

    Raises:
        RuntimeError: If this is inside of `torch.compile`, and torch is too old.
    """
    if torch.compiler.is_compiling() and not is_supported():
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise RuntimeError(
            f"{name}: a solve inside torch.compile needs torch {oldest} or newer, got {torch.__version__}; "
            f"solve outside of it, or install a newer one"
        )


def repeat(going: Callable[..., Any], body: Callable[..., Any], carried: Any) -> Any:
    """Repeats `carried = body(*carried)` while any of the flags `going(*carried)` is set.

    Args:
        going: Returns flags, any shape: boolean tensors, or in Python host truth values. Outside of `torch.compile` they
            are one host read a round, which `torch.func.vmap` allows.
        body: Returns a tuple like the one it is handed; inside of `torch.compile` its tensors keep their shapes and dtypes.
        carried: What is handed on, a tuple of pytrees.

    Example:
        >>> import torch
        >>> from dyn_numerics.loop import repeat
        >>> repeat(lambda x: x > 1, lambda x: (torch.where(x > 1, x / 2, x),), (torch.tensor([3.0, 0.5]),))
        (tensor([0.7500, 0.5000]),)
    """
    if torch.compiler.is_compiling():
        return while_loop(lambda *now: going(*now).any(), body, carried)
    while any_lane(going(*carried)):
        carried = body(*carried)
    return carried


def while_loop(going: Callable[..., Tensor], body: Callable[..., Any], carried: Any) -> Any:
    """Repeats `carried = body(*carried)` while `going(*carried)`, as one operation inside of `torch.compile`.

    Args:
        going: Returns a boolean, `[]`.
        body: Returns a tuple like the one it is handed; its tensors keep their shapes and dtypes.
        carried: What is handed on, a tuple of pytrees; what is no tensor in it stays as it is.
    """
    leaves, structure = tree_flatten(carried)
    is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]

    def whole(tensors: Sequence[Tensor]) -> Any:
        rest = iter(tensors)
        return tree_unflatten(
            [next(rest) if varies else leaf for varies, leaf in zip(is_tensor, leaves, strict=True)], structure
        )

    def tensors(carried: Any) -> list[Tensor]:
        # What comes back must have the memory layout of what was handed in.
        leaves = [leaf for leaf in tree_flatten(carried)[0] if isinstance(leaf, Tensor)]
        return [leaf.clone(memory_format=torch.contiguous_format) for leaf in leaves]

    def once(*old: Tensor) -> tuple[Tensor, ...]:
        new = tuple(tensors(body(*whole(old))))
        find_levels_when_run()
        return new

    found = torch.while_loop(lambda *old: going(*whole(old)), once, tuple(tensors(carried)))  # type: ignore[no-untyped-call]
    return whole(found)


def when(flag: bool | Tensor, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """Calls one of two functions, which return the same structure.

    Args:
        flag: Which: a truth value in Python, a boolean `[]` inside of `torch.compile`.
        then: Called where it is set.
        otherwise: Called where it is not.
    """
    if not isinstance(flag, Tensor):
        return then() if flag else otherwise()

    def branch(made: Any) -> Any:
        # Both must have the same memory layout, and none may be what was handed in.
        tensors = tree_map(lambda leaf: torch.as_tensor(leaf).clone(memory_format=torch.contiguous_format), made)
        find_levels_when_run()
        return tensors

    return torch.cond(flag, lambda: branch(then()), lambda: branch(otherwise()))


def count_from_zero(like: Tensor) -> int | Tensor:
    """What counts in a loop: a number of the host, or inside of `torch.compile` one of the program, int64 `[]`.

    Args:
        like: A tensor on the device of the loop.
    """
    return torch.zeros((), dtype=torch.int64, device=like.device) if torch.compiler.is_compiling() else 0
