"""A vector field that is called again and differentiated after the solve that it belongs to.

What it refers to may have changed in between, it may run under other settings, and its parameters may carry hooks that
expect one gradient. An algorithm that recalls the field leaves these to this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from dyn_numerics.per_sample import bare_arguments, sampled_leaves
from dyn_numerics.user_function import check_signature
from dyn_sensitivity.captured_tensors import (
    Edge,
    captured_buffers,
    captured_parameters,
    refuse_entangled,
    refuse_tangents,
    refuse_undeclared,
)

__all__ = ["RecalledField", "hooks_set_aside"]

CHANGED = (
    "It was found in the backward solve: f needs it only sometimes, or refers to something else by now. A function made "
    "in a loop sees what the loop ended with; bind what it uses, as in lambda t, x, net=net: net(x)."
)


@dataclass
class RecalledField:
    """A field and how the tensors that want gradients go into it; it holds none of them.

    Attributes:
        f: The user's field.
        state_structure: Structure of the state.
        n_state: Number of its leaves.
        arg_leaves: Leaves of the args, None for those that want gradients.
        arg_structure: Structure of the args.
        wanted_at: Which of `arg_leaves` want gradients.
        sampled: Which of them belong to the samples.
        places: Whose values each sample takes of these, `[batch]`; its own if None.
    """

    f: Callable[..., Any]
    state_structure: TreeSpec
    n_state: int
    arg_leaves: list[Any]
    arg_structure: TreeSpec
    wanted_at: list[int]
    sampled: tuple[bool, ...]
    places: Tensor | None = None
    _first: tuple[Tensor, Any, list[Tensor]] | None = None  # time, state and slope of the first evaluation

    @classmethod
    def of(
        cls, f: Callable[..., Any], x0: Any, args: tuple[Any, ...], params: Sequence[Tensor]
    ) -> tuple[RecalledField, list[Tensor]]:
        """Takes a problem apart.

        Args:
            f: Vector field `f(t, x, *args)`.
            x0: Initial state.
            args: Further arguments of `f`, those of the samples as `PerSample`.
            params: Tensors that `f` captures, beyond the parameters of modules it holds.

        Returns:
            The field, and what gradients go to: the leaves of the state, the tensors in args that want gradients, and
            the parameters that do.

        Raises:
            TypeError: If `f` cannot be called as said.
            ValueError: If the params were computed from each other, or `f` depends on a tensor with a forward-mode
                derivative.
        """
        check_signature(f, len(args))
        state, state_structure = tree_flatten(x0)
        arg_leaves, arg_structure = tree_flatten(bare_arguments(args))
        refuse_tangents(f, arg_leaves)
        wanted_at = [i for i, leaf in enumerate(arg_leaves) if _wants_gradient(leaf)]
        extra = list({id(p): p for p in (*captured_parameters(f), *params) if _wants_gradient(p)}.values())
        refuse_entangled([p for p in params if _wants_gradient(p)], extra)
        wanted = [arg_leaves[i] for i in wanted_at]
        rest = [None if _wants_gradient(leaf) else leaf for leaf in arg_leaves]
        field = cls(f, state_structure, len(state), rest, arg_structure, wanted_at, sampled_leaves(args))
        return field, [*state, *wanted, *extra]

    @property
    def constants(self) -> list[Tensor]:
        """The tensors in args that want no gradient, and the buffers of modules that `f` holds."""
        return [*(leaf for leaf in self.arg_leaves if isinstance(leaf, Tensor)), *captured_buffers(self.f)]

    def split(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Splits what gradients go to into state, args and parameters."""
        end = self.n_state + len(self.wanted_at)
        return list(inputs[: self.n_state]), list(inputs[self.n_state : end]), list(inputs[end:])

    def args_with(self, wanted: Sequence[Tensor]) -> tuple[Any, ...]:
        """The args of `f`, complete with the tensors that want gradients."""
        leaves = list(self.arg_leaves)
        for i, leaf in zip(self.wanted_at, wanted, strict=True):
            leaves[i] = leaf
        if self.places is not None:
            pairs = zip(leaves, self.sampled, strict=True)
            leaves = [leaf[self.places] if sampled else leaf for leaf, sampled in pairs]
        args: tuple[Any, ...] = tree_unflatten(leaves, self.arg_structure)
        return args

    def observed(self, wanted: Sequence[Tensor], extra: Sequence[Tensor]) -> Callable[..., Any]:
        """Returns the field for the forward solve; its first evaluation is kept, and looks for undeclared captures."""

        def field(t: Tensor, x: Any, *args: Any) -> Any:
            if self._first is not None:
                return self.f(t, x, *args)
            with torch.enable_grad():
                leaves, arguments = _as_leaves(tree_leaves(x)), _as_leaves(wanted)
                slope = self.f(t, tree_unflatten(leaves, self.state_structure), *self.args_with(arguments))
            slopes = [leaf for leaf in tree_leaves(slope) if isinstance(leaf, Tensor)]
            refuse_undeclared(self.f, slopes, [*leaves, *arguments, *extra])
            self._first = t, x, [leaf.detach().clone() for leaf in slopes]
            return tree_map_only(Tensor, Tensor.detach, slope)

        return field

    def refuse_changed(self, wanted: Sequence[Tensor], extra: Sequence[Tensor]) -> None:
        """Refuses a field that is no longer the one that was solved; its gradient would be that of something else.

        Raises:
            ValueError: If it has another value than where the forward solve started, or a parameter stopped requiring
                gradients.
        """
        if not all(p.requires_grad for p in extra):
            raise ValueError(
                "f: a parameter stopped requiring gradients between the forward and the backward solve; freeze it "
                "before the forward solve, or use sensitivity='autograd'"
            )
        if self._first is None:  # a span of no length
            return
        t, x, before = self._first

        def slope() -> list[Any]:
            return tree_leaves(self.f(t, x, *self.args_with(wanted)))

        # Two values from the same input are those of a random field, and no sign of change.
        if _differ(now := slope(), before) and not _differ(slope(), now):
            raise ValueError(
                f"f: has another value than in the forward solve at t = {t.flatten()[0].item():.6g}; keep what it depends on "
                f"(attributes, train and eval mode, captured variables) until the gradient is computed, pass it as "
                f"args=(...), or use sensitivity='autograd'. {CHANGED}"
            )

    def time_of(self, t: Tensor, state: Sequence[Tensor]) -> Tensor:
        """Times `[]` or `[batch]` as the field receives them: shaped against a state that is a tensor."""
        dims = state[0].dim() - 1 if t.dim() and self.state_structure.is_leaf() else 0
        return t.reshape(*t.shape, *[1] * dims) if dims else t

    def pull_back(
        self,
        t: Tensor,
        state: Sequence[Tensor],
        cotangent: Sequence[Tensor],
        wanted: Sequence[Tensor],
        extra: Sequence[Tensor],
        *,
        by_state: bool = True,
        by_rest: bool = True,
        known: Set[Edge] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Evaluates `f` at a state, and its vector-Jacobian product with respect to state, args and parameters.

        Args:
            t: Time, `[]`, or what broadcasts against the state where samples have their own.
            state: Leaves of the state.
            cotangent: What the slopes are contracted with, in the shapes of the state.
            wanted: Tensors in args that want gradients.
            extra: Parameters that want gradients.
            by_state: Whether the product with respect to the state is wanted.
            by_rest: Whether those with respect to args and parameters are.
            known: The edges of the parameters, for one who evaluates often.

        Returns:
            The leaves of the slope, the products with respect to the state, and those with respect to args and parameters;
            zero where `f` does not depend on one, and none where they are not wanted.

        Raises:
            ValueError: If `f` depends on a differentiable tensor that the forward solve did not know of.
        """
        t = t.to(reduce(torch.promote_types, [leaf.dtype for leaf in state]).to_real())  # parameters may have another
        with torch.enable_grad():
            state, wanted = _as_leaves(state), _as_leaves(wanted)
            slope = tree_leaves(self.f(t, tree_unflatten(state, self.state_structure), *self.args_with(wanted)))
            declared = [*state, *wanted, *extra]
            inputs = (
                declared if by_state and by_rest else state if by_state else declared[len(state) :] if by_rest else []
            )
            try:
                refuse_undeclared(self.f, slope, declared if known is None else [*state, *wanted], known or set())
            except ValueError as error:
                error.add_note(CHANGED)
                raise
            pairs = [(k, a) for k, a in zip(slope, cotangent, strict=True) if k.requires_grad]
            found: Sequence[Tensor | None] = [None] * len(inputs)
            if pairs and inputs:
                outputs, cotangents = zip(*pairs, strict=True)
                # What f captures may have been computed before; that part of the graph is passed more than once.
                found = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True, allow_unused=True)
        products = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
        count = len(state) if by_state else 0
        return [k.detach() for k in slope], products[:count], products[count:]


@contextmanager
def hooks_set_aside(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Keeps hooks and retained gradients from seeing the share of every evaluation: they wait for the whole gradient.

    Args:
        tensors: What is differentiated with respect to.
    """
    hooks = [(tensor._backward_hooks, dict(tensor._backward_hooks)) for tensor in tensors if tensor._backward_hooks]
    retained = [(tensor, tensor.grad) for tensor in tensors if tensor.retains_grad]
    for registered, _ in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, kept in hooks:
            registered.update(kept)
        for tensor, gradient in retained:
            tensor.grad = gradient


def _differ(now: Sequence[Any], before: Sequence[Tensor]) -> bool:
    """Whether two slopes differ by more than what a device may round in another order."""
    for a, b in zip(now, before, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return True
        allowed = sqrt(torch.finfo(b.dtype).eps) * torch.nan_to_num(b).abs()
        if b.numel() and bool(((a - b).abs() > allowed.max()).any()):
            return True
    return False


def _as_leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


def _wants_gradient(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad
