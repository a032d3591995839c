"""Other tensors in the places of those that a function holds, however it holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Substitution"]


class Substitution(TorchFunctionMode):
    """Hands every operation of PyTorch other tensors for some, which are known by identity.

    Closures, modules and arguments stay as they are; where one of the tensors meets an operation, the other takes its
    place. What does not meet Python on its way, such as a parameter of a scripted module, is not replaced.

    Args:
        tensors: What to replace, each once.
        others: What takes their places.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.substitution import Substitution
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> with Substitution([layer.weight], [torch.full((1, 1), 3.0)]):
        ...     print(layer(torch.ones(1)))
        tensor([3.])
    """

    def __init__(self, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        super().__init__()
        self._tensors = list(tensors)  # kept, or their identity could be another's
        self._others = {id(tensor): other for tensor, other in zip(tensors, others, strict=True)}

    def of(self, value: Any) -> Any:
        """What takes the place of a value: of a tensor another, of lists, tuples and dicts one with others in it."""
        if isinstance(value, Tensor):
            return self._others.get(id(value), value)
        kind = type(value)
        if kind is tuple or kind is list:
            return kind([self.of(item) for item in value])
        if kind is dict:
            return {key: self.of(item) for key, item in value.items()}
        return value

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls an operation with the others."""
        return func(*self.of(tuple(args)), **self.of(kwargs or {}))
