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
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from dyn_numerics import SplitField
from dyn_numerics.ode.events.jump import Jump
from dyn_numerics.ode.flat_field import SampledField, flat_field
from dyn_numerics.ode.split_field import Split
from dyn_numerics.ode.times import state_time
from dyn_numerics.per_sample import bare_arguments, sampled_leaves
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.user_function import UserFunction
from dyn_sensitivity.ode.integral_loss import FieldAndLoss

__all__ = ["CompiledField", "module_of", "named_parameters", "refuse_differentiable"]

# A compiled backward pass may reuse the memory of what it was handed and nobody else has. torch 2.13 takes its list of
# these for one of the inputs of a loop's body as well, and overwrites whatever stands there, the user's times among them.
torch._functorch.config.donated_buffer = False


@dataclass(frozen=True)
class CompiledField:
    """A field and where the tensors that want gradients go in it.

    Attributes:
        f: The user's field.
        layout: Layout of the state.
        modules: The modules that the field is or belongs to, of each of its functions.
        names: Names of their parameters that want gradients; one that is used in several places has several.
        places: Which of the parameters each name is for.
        arg_leaves: Leaves of the args.
        arg_structure: Structure of the args.
        wanted_at: Which of `arg_leaves` want gradients.
        sampled: Which of them belong to the samples.
        split: How the method wants the field, if it is split.
    """

    f: Callable[..., Any]
    layout: StateLayout
    modules: tuple[nn.Module, ...]
    names: tuple[tuple[str, ...], ...]
    places: tuple[tuple[int, ...], ...]
    arg_leaves: tuple[Any, ...]
    arg_structure: TreeSpec
    wanted_at: tuple[int, ...]
    sampled: tuple[bool, ...]
    split: Split | None

    @classmethod
    def of(
        cls,
        f: Callable[..., Any],
        layout: StateLayout,
        args: tuple[Any, ...],
        split: Split | None = None,
        jump: Callable[..., Any] | None = None,
    ) -> tuple[CompiledField, list[Tensor]]:
        """Takes a field apart.

        Args:
            f: Vector field.
            layout: Layout of the state.
            args: Further arguments of `f`.
            split: How the method wants the field, if it is split.
            jump: What becomes of the state at stops, with parameters of its own if it is a module or a method of one.

        Returns:
            The field, and what its gradient goes to beside the state: tensors in args, then parameters.

        Raises:
            ValueError: If the field is random, since its steps are computed again on the way back.
        """
        modules = _modules_of(f, jump)
        parameters: list[Tensor] = []
        names, places = [], []
        for module in modules:
            _refuse_random(module)
            named = [(n, p) for n, p in named_parameters(module) if p.requires_grad]
            own = []
            for _, parameter in named:
                at = next((i for i, known in enumerate(parameters) if known is parameter), len(parameters))
                own.append(at)
                if at == len(parameters):
                    parameters.append(parameter)
            names.append(tuple(name for name, _ in named))
            places.append(tuple(own))
        leaves, structure = tree_flatten(bare_arguments(args))
        wanted_at = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad)
        sampled = sampled_leaves(args)
        held = modules, tuple(names), tuple(places)
        field = cls(f, layout, *held, tuple(leaves), structure, wanted_at, sampled, split)
        return field, [*(leaves[i] for i in wanted_at), *parameters]

    def args_with(self, inputs: Sequence[Tensor], places: Tensor | None = None) -> tuple[Any, ...]:
        """The args of `f`, with some tensors in the places of those that want gradients.

        Args:
            inputs: These tensors.
            places: Whose values each sample takes of what belongs to samples, `[batch]`; its own if None.
        """
        given = dict(zip(self.wanted_at, inputs, strict=False))
        leaves = [
            given[i] if i in given else leaf.detach() if isinstance(leaf, Tensor) else leaf
            for i, leaf in enumerate(self.arg_leaves)
        ]
        if places is not None:
            leaves = [leaf[places] if sampled else leaf for leaf, sampled in zip(leaves, self.sampled, strict=True)]
        args: tuple[Any, ...] = tree_unflatten(leaves, self.arg_structure)
        return args

    def at(self, inputs: Sequence[Tensor], places: Tensor | None = None) -> SampledField:
        """The field on flat states with some tensors in the places of those that its gradient goes to; as `args_with`."""
        args, f = self.args_with(inputs, places), self.f
        if isinstance(f, SplitField):
            f = SplitField(self._called(f.a, inputs), self._called(f.b, inputs))
        else:
            f = self._called(f, inputs)
        return flat_field(f, args, self.layout, self.split)

    def jump_at(self, jump: Callable[..., Any], inputs: Sequence[Tensor], places: Tensor | None = None) -> Jump:
        """A jump on flat states with some tensors in the places of those that its gradient goes to; as `args_with`."""
        function = UserFunction(self._called(jump, inputs), self.args_with(inputs, places), self.layout, "jump")
        return Jump("jump", function, self.layout)

    def _called(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
        """A function that finds others in the places of the parameters."""
        given = inputs[len(self.wanted_at) :]
        for module, names, places in zip(self.modules, self.names, self.places, strict=True):
            if names:
                parameters = {name: given[at] for name, at in zip(names, places, strict=True)}
                function = _with_parameters(module, parameters, function)
        return function

    def refuse_undeclared(
        self, t: Tensor, start: Tensor, inputs: Sequence[Tensor], jump: Callable[..., Any] | None = None
    ) -> None:
        """Refuses a field or a jump that depends on differentiable tensors which its gradient would not reach.

        Args:
            t: A time, `[*lead]`.
            start: A state, `[*lead, N]`.
            inputs: What its gradient goes to.
            jump: What becomes of the state at stops.

        Raises:
            ValueError: If it does.
        """
        values = [value.detach() for value in inputs]
        with torch.enable_grad():
            found = {"f": self.at(values)(state_time(t, start), start.detach())}
            if jump is not None:
                found["jump"] = self.jump_at(jump, values)(t, start.detach())
        for name, value in found.items():
            if value.requires_grad:
                raise ValueError(
                    f"{name}: captures something that requires a gradient, which inside torch.compile reaches only args and "
                    f"the parameters of the module that {name} is or is a method of; pass a module, such as "
                    f"dyn_models.NeuralODE does, or what {name} captures as args=(...)"
                )


def refuse_differentiable(t_span: Tensor | Sequence[float]) -> None:
    """Refuses times whose gradient is wanted.

    Raises:
        ValueError: If it is.
    """
    if any(isinstance(t, Tensor) and t.requires_grad for t in tree_leaves(t_span)):
        raise ValueError("t_span: got a tensor that requires a gradient, which a compiled solve has not; detach it")


def named_parameters(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters of a module under all of their names."""
    found = []
    for prefix, part in module.named_modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found.append((f"{prefix}.{name}" if prefix else name, parameter))
    return found


def _with_parameters(
    module: nn.Module, parameters: dict[str, Tensor], function: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that finds others in the places of a module's parameters."""

    def call(t: Tensor, x: Any, *args: Any) -> Any:
        with _reparametrize_module(module, parameters):
            return function(t, x, *args)

    return call


def _refuse_random(module: nn.Module) -> None:
    """Refuses a module that draws random numbers, which would be others in the backward pass."""
    for part in module.modules():
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise ValueError(
                f"f: holds a {type(part).__name__} in training mode, which would draw other numbers in the backward pass of a compiled "
                f"solve; call its eval(), or solve outside of torch.compile with sensitivity='autograd'"
            )


def _modules_of(f: Callable[..., Any], jump: Callable[..., Any] | None) -> tuple[nn.Module, ...]:
    """The modules that the functions of a field, and a jump, are or are methods of, each once."""
    functions = (f.f, f.loss) if isinstance(f, FieldAndLoss) else (f,)
    found: list[nn.Module] = []
    for function in (*functions, jump):
        owner = None if function is None else module_of(function)
        if owner is not None and not any(owner is known for known in found):
            found.append(owner)
    return tuple(found)


def module_of(f: Callable[..., Any]) -> nn.Module | None:
    """The module that a field is or is a method of."""
    if isinstance(f, nn.Module):
        return f
    owner = f.__self__ if isinstance(f, MethodType) else None
    return owner if isinstance(owner, nn.Module) else None
