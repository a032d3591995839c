"""A vector field inside of torch.compile, as a function of everything that its gradient goes to.

A compiled backward solve differentiates with `torch.func.vjp`, which has to be handed what it differentiates by: the
tensors in args, and the parameters of the module that the field is or belongs to. They are put in their places for the
time of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from dyn_numerics.ode.flat_field import UserField
from dyn_numerics.pytree_state import StateLayout

__all__ = ["CompiledField"]

# A compiled backward pass may reuse the memory of what it was handed and nobody else has. torch 2.13 takes its list of
# these for one of the inputs of a loop's body as well, and overwrites whatever stands there, the user's times among them.
torch._functorch.config.donated_buffer = False


@dataclass(frozen=True)
class CompiledField:
    """A field and where the tensors that want gradients go in it.

    Attributes:
        f: The user's field.
        layout: Layout of the state.
        module: The module that the field is or belongs to, or None.
        names: Names of its parameters that want gradients.
        arg_leaves: Leaves of the args.
        arg_structure: Structure of the args.
        wanted_at: Which of `arg_leaves` want gradients.
    """

    f: Callable[..., Any]
    layout: StateLayout
    module: nn.Module | None
    names: tuple[str, ...]
    arg_leaves: tuple[Any, ...]
    arg_structure: TreeSpec
    wanted_at: tuple[int, ...]

    @classmethod
    def of(
        cls, f: Callable[..., Any], layout: StateLayout, args: tuple[Any, ...]
    ) -> tuple[CompiledField, list[Tensor]]:
        """Takes a field apart.

        Returns:
            The field, and what its gradient goes to beside the state: tensors in args, then parameters.
        """
        module = _module_of(f)
        named = [] if module is None else [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        leaves, structure = tree_flatten(args)
        wanted_at = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad)
        names = tuple(name for name, _ in named)
        field = cls(f, layout, module, names, tuple(leaves), structure, wanted_at)
        return field, [*(leaves[i] for i in wanted_at), *(p for _, p in named)]

    def args_with(self, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
        """The args of `f`, with some tensors in the places of those that want gradients."""
        given = dict(zip(self.wanted_at, inputs, strict=False))
        leaves = [
            given[i] if i in given else leaf.detach() if isinstance(leaf, Tensor) else leaf
            for i, leaf in enumerate(self.arg_leaves)
        ]
        args: tuple[Any, ...] = tree_unflatten(leaves, self.arg_structure)
        return args

    def at(self, inputs: Sequence[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """The field on flat states with some tensors in the places of those that its gradient goes to."""
        args = self.args_with(inputs)
        module, names = self.module, self.names
        parameters = dict(zip(names, inputs[len(self.wanted_at) :], strict=True))

        def call(t: Tensor, x: Any, *args: Any) -> Any:
            if module is None or not names:
                return self.f(t, x, *args)
            with _reparametrize_module(module, parameters):
                return self.f(t, x, *args)

        return UserField(call, args, self.layout)

    def refuse_undeclared(self, t: Tensor, start: Tensor, inputs: Sequence[Tensor]) -> None:
        """Refuses a field that depends on differentiable tensors which its gradient would not reach.

        Args:
            t: A time, `[*lead]`.
            start: A state, `[*lead, N]`.
            inputs: What its gradient goes to.

        Raises:
            ValueError: If it does.
        """
        with torch.enable_grad():
            slope = self.at([value.detach() for value in inputs])(t.to(start.dtype), start.detach())
        if slope.requires_grad:
            raise ValueError(
                "f: captures something that requires a gradient, which inside torch.compile reaches only args and the "
                "parameters of the module that f is or is a method of; pass a module as f, such as dyn_models.NeuralODE "
                "does, or what f captures as args=(...)"
            )


def _module_of(f: Callable[..., Any]) -> nn.Module | None:
    """The module that a field is or is a method of."""
    if isinstance(f, nn.Module):
        return f
    owner = f.__self__ if isinstance(f, MethodType) else None
    return owner if isinstance(owner, nn.Module) else None
