"""Mixed precision: a user's function computes under autocast, a numerical method never does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial

import torch

__all__ = ["autocast_of_caller", "without_autocast"]


def autocast_of_caller(device_type: str) -> Callable[[], AbstractContextManager[object]]:
    """Returns what enters the autocast of now, whatever it will be later.

    Args:
        device_type: Type of the device that computes, such as `"cuda"`.

    Example:
        >>> import torch
        >>> from dyn_numerics.autocast import autocast_of_caller
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     mixed = autocast_of_caller("cpu")
        >>> with mixed():
        ...     print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        torch.bfloat16
    """
    return partial(
        torch.autocast,
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=torch.is_autocast_cache_enabled() and (torch.compiler.is_compiling() or _cache_knows_grad_mode()),
    )


@cache
def _cache_knows_grad_mode() -> bool:
    """Whether a weight that autocast has cast without grad is cast again with it.

    In older versions of torch it is not, and has no gradient from then on: a solve evaluates in both modes.
    """
    weight = torch.ones(1, 1, dtype=torch.float32, device="cpu", requires_grad=True)  # autocast casts no float64
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            torch.mm(weight, weight)
        return torch.mm(weight, weight).requires_grad


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Returns a context that computes in the dtypes of its tensors: half precision is for models, not for step errors."""
    return torch.autocast(device_type, enabled=False)
