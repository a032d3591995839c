"""Modules whose training mode does not go with a solver that chooses its steps, or with a gradient by an adjoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dyn_sensitivity.captured_tensors import captured_modules

__all__ = ["modules_in_training", "warn_of_training"]

_DRAWS: Mapping[type[nn.Module], Callable[[Any], bool]] = {
    _DropoutNd: lambda module: module.p > 0,
    nn.RReLU: lambda module: module.lower < module.upper,
    nn.MultiheadAttention: lambda module: module.dropout > 0,
    nn.RNNBase: lambda module: module.dropout > 0 and module.num_layers > 1,
}
"""Modules that draw random numbers in training mode, and whether one of them does; PyTorch's others consist of these."""

_warned: WeakSet[nn.Module] = WeakSet()


def modules_in_training(functions: Iterable[Callable[..., Any]]) -> Iterator[tuple[str, nn.Module, str]]:
    """Finds modules that compute something else at every evaluation because they are in training mode.

    Args:
        functions: The functions of a problem.

    Yields:
        Their names, themselves, and what each does.

    Example:
        >>> from torch import nn
        >>> from dyn_sensitivity.ode.training_mode import modules_in_training
        >>> [(name, doing) for name, _, doing in modules_in_training([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))])]
        [('f.1', 'draws other numbers at every evaluation')]
    """
    for function in functions:
        for name, module in captured_modules(function):
            if not module.training:
                continue
            if any(isinstance(module, kind) and draws(module) for kind, draws in _DRAWS.items()):
                yield name, module, "draws other numbers at every evaluation"
            elif isinstance(module, _BatchNorm):
                yield name, module, "mixes the samples of every evaluation, and counts all of them in its statistics"


def warn_of_training(modules: Iterable[tuple[str, nn.Module, str]], adaptive: bool) -> None:
    """Warns of every such module once.

    Args:
        modules: As `modules_in_training` yields them.
        adaptive: Whether the solver chooses its steps; otherwise it is the adjoint that they do not go with.
    """
    place, cost = "an adaptive solve", "rejected steps and their errors are those of another function"
    if not adaptive:
        place, cost = "an adjoint", "its backward solve is of another function than the forward one"
    for name, module, doing in modules:
        if module not in _warned:
            _warned.add(module)
            warnings.warn(
                f"{name} ({type(module).__name__}) is in training mode in {place}. It {doing}, so that {cost}. Call its "
                f"eval(), or use fixed steps with sensitivity='autograd' or 'checkpoint'.",
                stacklevel=4,
            )
