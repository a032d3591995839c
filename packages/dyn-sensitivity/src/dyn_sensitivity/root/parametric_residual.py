"""A residual as a function of all that its second derivatives go to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_flatten, tree_unflatten

from dyn_numerics.root.residual import Residual
from dyn_numerics.transforms import any_lane
from dyn_sensitivity.captured_tensors import refuse_undeclared
from dyn_sensitivity.ode.compiled_field import named_parameters

__all__ = ["ParametricResidual"]

ADVICE = "for second derivatives pass it as args=(...) and have it taken, or use sensitivity='unrolled'"


class ParametricResidual:
    """A residual `r(x, *inputs)`: tensors in args and the parameters of modules are inputs.

    Args:
        residual: The residual.
        modules: Modules that the function holds.

    Attributes:
        inputs: The tensors among these that want gradients: those in args, then the parameters, each once.
    """

    def __init__(self, residual: Residual, modules: Sequence[nn.Module]) -> None:
        self._residual = residual
        self._leaves, self._structure = tree_flatten(residual.args)
        self._wanted_at = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        self._modules: list[tuple[nn.Module, dict[str, int]]] = []  # with what each of their parameters is among these
        parameters: list[Tensor] = []
        places: dict[int, int] = {}
        for module in modules:
            named = {}
            for name, parameter in named_parameters(module):
                if parameter.requires_grad:
                    if id(parameter) not in places:
                        places[id(parameter)] = len(parameters)
                        parameters.append(parameter)
                    named[name] = places[id(parameter)]
            self._modules.append((module, named))
        self.inputs = [*(self._leaves[i] for i in self._wanted_at), *parameters]

    def __call__(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """The residual of an iterate, both `[batch, N]`, with other tensors in the places of its inputs."""
        n = len(self._wanted_at)
        given = dict(zip(self._wanted_at, inputs[:n], strict=True))
        leaves = [given.get(i, leaf) for i, leaf in enumerate(self._leaves)]
        residual = self._residual.with_arguments(tree_unflatten(leaves, self._structure))
        return _with_parameters(residual, x, self._modules, inputs[n:])

    def verify(self, f: Callable[..., Any], x: Tensor, inputs: Sequence[Tensor], before: Tensor) -> None:
        """Refuses a residual that is not a function of `x` and its inputs alone.

        Args:
            f: The user's function, searched for names.
            x: An iterate, `[batch, N]`.
            inputs: The inputs.
            before: What the residual was there, `[batch, N]`.

        Raises:
            ValueError: If it depends on another differentiable tensor, or has another value than before.
        """
        known = [tensor.detach().requires_grad_() for tensor in (x, *inputs)]
        with torch.enable_grad():
            now = self(*known)
        refuse_undeclared(f, [now], known, advice=ADVICE)
        scale = torch.maximum(now.abs().amax(), x.abs().amax())
        if any_lane(((now - before).abs() > sqrt(torch.finfo(now.dtype).eps) * scale).detach()):
            raise ValueError(
                "f: has another value than when its root was found. For second derivatives it is evaluated again: keep what "
                "it depends on until they are computed, and random numbers out of it, or use sensitivity='unrolled'"
            )


def _with_parameters(
    residual: Residual, x: Tensor, modules: Sequence[tuple[nn.Module, dict[str, int]]], parameters: Sequence[Tensor]
) -> Tensor:
    """The residual of an iterate with parameters of modules replaced, `[batch, N]`."""
    if not modules:
        return residual(x)
    (module, named), *rest = modules
    with _reparametrize_module(module, {name: parameters[place] for name, place in named.items()}):
        return _with_parameters(residual, x, rest, parameters)
