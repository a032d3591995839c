"""What a loop has to know about `torch.func`: whether its tensors stand for many, and one flag for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
)
from torch.autograd import forward_ad

__all__ = [
    "any_lane",
    "derivatives_are_off",
    "in_forward_mode",
    "n_differentiations",
    "transform_depth",
    "under_differentiation",
    "under_transform",
    "under_vmap",
    "without_derivatives",
    "without_transforms",
]


def transform_depth() -> int:
    """How many transforms of `torch.func` (`vmap`, `jvp`, `vjp`, ...) are at work."""
    return 0 if torch.compiler.is_compiling() else len(get_interpreter_stack() or ())


def under_transform() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return transform_depth() > 0


def without_transforms(x: Tensor) -> Tensor:
    """The tensor that those of all transforms of `torch.func` are made of."""
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return x


def under_vmap() -> bool:
    """Whether `torch.func.vmap` is at work, alone or around or inside other transforms.

    Tensors then hold a value for every lane, and a host number cannot be read from them.
    """
    return under_transform() and any(
        interpreter.key() == TransformType.Vmap for interpreter in get_interpreter_stack() or ()
    )


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives are being computed."""
    return forward_ad._current_level >= 0


def n_differentiations() -> int:
    """How many transforms of `torch.func` that differentiate are at work, or forward-mode differentiation without one."""
    keys = [] if torch.compiler.is_compiling() else [one.key() for one in get_interpreter_stack() or ()]
    n = sum(key in (TransformType.Grad, TransformType.Jvp) for key in keys)
    return max(n, int(in_forward_mode()))


def under_differentiation() -> bool:
    """Whether a transform of `torch.func` that differentiates is at work, or forward-mode differentiation."""
    return n_differentiations() > 0


@contextmanager
def without_derivatives() -> Iterator[None]:
    """Computes values alone, in reverse and in forward mode; of nested transforms the innermost alone is stopped.

    What is computed has to be detached as well where others are at work.
    """
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        yield


def derivatives_are_off() -> bool:
    """Whether neither reverse nor forward mode is recorded, as in `without_derivatives`."""
    return not (torch.is_grad_enabled() or torch._C._is_fwd_grad_enabled())


def any_lane(flags: Tensor | bool) -> bool:
    """Whether any of some flags is set, in any lane of `torch.func.vmap`: one host read, of tensors.

    Args:
        flags: Boolean, any shape; or a host truth value, which is its own answer.

    Example:
        >>> import torch
        >>> from dyn_numerics.transforms import any_lane
        >>> seen = []
        >>> def halve(x):
        ...     seen.append(any_lane(x > 1))
        ...     return x / 2
        >>> _ = torch.func.vmap(halve)(torch.tensor([0.5, 3.0]))
        >>> seen
        [True]
    """
    if isinstance(flags, bool):
        return flags
    if under_transform():
        return bool(_AnyLane.apply(flags.detach()).item())  # type: ignore[no-untyped-call]
    return bool(flags.any().item())


class _AnyLane(torch.autograd.Function):
    """Reduces flags over the lanes of every `vmap`; it has no derivative."""

    @staticmethod
    def forward(flags: Tensor) -> Tensor:
        return flags.any()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], flags: Tensor) -> tuple[Tensor, None]:
        return _AnyLane.apply(flags), None  # type: ignore[no-untyped-call]
