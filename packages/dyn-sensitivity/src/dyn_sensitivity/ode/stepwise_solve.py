"""A solve whose steps are pulled back one by one, from the last to the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics.autocast import without_autocast
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.attempt import Problem
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.repetition import Chain
from dyn_sensitivity.ode.recalled_field import hooks_set_aside
from dyn_sensitivity.ode.repeating_algorithm import TakenSteps
from dyn_sensitivity.ode.seen_step import SeenStep, without_tensors
from dyn_sensitivity.ode.step_randomness import StepRandomness
from dyn_sensitivity.ode.tensor_tree import TensorTree, has_gradients
from dyn_sensitivity.ode.trail import Trail

__all__ = ["StepwiseSolve"]

Gradients = list[Tensor | None]


@dataclass(eq=False)
class StepwiseSolve:
    """The accepted steps of a solve as one differentiable function, with the memory of a trail.

    Its inputs are the output times, the state at the start, the tensors in args and what else wants gradients.

    Attributes:
        name: What users call the algorithm.
        device: Where it computes.
        chain: The steps.
        observed: Which of them are looked at.
        randomness: What they draw.
        problem_of: The problem, with other tensors in the places of the first inputs; the others stay where they are.
        n_placed: Number of these.
        constants: What the field depends on that wants no gradient: tensors in args, and buffers of modules that it holds.
        trail_of: What remembers a chain.
        refuse_undeclared: Refuses outputs that depend on other differentiable tensors than those that are declared.
        trail: What remembers this chain, until it is handed over.
        end: Summary of the last states, by which a field that changed is noticed.
    """

    name: str
    device: torch.device
    chain: Chain
    observed: Sequence[bool]
    randomness: StepRandomness
    problem_of: Callable[..., Problem]
    n_placed: int
    constants: list[Tensor]
    trail_of: Callable[[Chain], Trail]
    refuse_undeclared: Callable[[Sequence[Tensor], Sequence[Tensor]], None]
    trail: Trail | None = field(init=False, default=None)
    end: Tensor = field(init=False)
    _taken: TakenSteps = field(init=False)
    _n_link: int = field(init=False)
    _n_seen: dict[int, int] = field(init=False)

    def taken(self, inputs: Sequence[Tensor]) -> TakenSteps:
        """Takes all steps; what comes of them has its gradient.

        Args:
            inputs: Everything that gradients go to.
        """
        tensors = _StepwiseFunction.apply(self, *inputs)  # type: ignore[no-untyped-call]
        return self._taken._replace(tensors=tensors)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Takes all steps, and returns the differentiable tensors of the last link and of what is to be kept."""
        chain, differentiable = self._at(inputs), torch.is_grad_enabled()
        trail = self.trail_of(chain)
        link, seen, steps, n_evals = chain.first(inputs[1]), {}, [], 0
        declared = [tensor for tensor in inputs if tensor.requires_grad]
        for i in range(len(chain)):
            before = link
            # What steps depend on shows in the graph of the first, and of those in which something happens.
            looked_at = not differentiable and (i == 0 or chain.has_event(i))
            if looked_at:
                link = tree_map_only(Tensor, _as_leaf, link)
                known = [*declared, *_differentiable(link)]
            with torch.set_grad_enabled(differentiable or looked_at), self.taking(i):
                link, attempted = chain.advance(i, link)
                if self._is_seen(i, attempted):
                    seen[i] = SeenStep.of(attempted)
                    steps.append(without_tensors(attempted))
            if looked_at:
                self.refuse_undeclared(_differentiable((link, seen)), known)
                link, seen = tree_map_only(Tensor, Tensor.detach, (link, seen))
            if not differentiable:
                trail.passed(i, before, attempted)
            n_evals += attempted.n_evals
        outputs, tensors = TensorTree.of((link, list(seen.values())), has_gradients)
        if not differentiable:
            trail.arrived(link)
            self.trail, self.end = trail, _summary(link.x)
            self._n_link = len(_differentiable(link))
            self._n_seen = {i: len(_differentiable(values)) for i, values in seen.items()}
            self._taken = TakenSteps(outputs, (), steps, n_evals + chain.n_evals)
        return tuple(tensors)

    def backward(self, trail: Trail, kept: Any, end: Tensor, grads: Gradients, *inputs: Tensor) -> list[Tensor | None]:
        """Pulls gradients of what `forward` returned back through the steps, to the inputs.

        Args:
            trail: What remembers the chain.
            kept: What it remembers.
            end: Summary of the last states.
            grads: The gradients of what `forward` returned, None for one that is zero.
            *inputs: What `forward` was handed.
        """
        placed, others = inputs[: self.n_placed], inputs[self.n_placed :]
        inputs = (*(_as_leaf(tensor, tensor.requires_grad) for tensor in placed), *others)
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        chain = self._at(inputs)

        ahead = iter(grads)
        of_link: Gradients = [next(ahead) for _ in range(self._n_link)]
        of_seen = {i: [next(ahead) for _ in range(count)] for i, count in self._n_seen.items()}

        total: Gradients = [None] * len(wanted)
        for i, link in itertools.chain(trail.back(_Quiet(self, chain, inputs[1]), kept), [(0, None)]):
            with torch.enable_grad(), self.taking(i):
                link = chain.first(inputs[1]) if link is None else tree_map_only(Tensor, _as_leaf, link)
                before = [] if i == 0 else _differentiable(link)
                after, attempted = chain.advance(i, link)
                made, cotangents = _differentiable(after), of_link
                if self._is_seen(i, attempted):
                    made = made + _differentiable(SeenStep.of(attempted))
                    cotangents = cotangents + of_seen[i]
                self.refuse_undeclared(made, [*before, *wanted])
                found = _pulled_back(zip(made, cotangents, strict=True), [*before, *wanted])
            if i == len(chain) - 1:
                self._refuse_changed(after.x, link.x, end)
            of_link = found[: len(before)]
            total = [_sum(a, b) for a, b in zip(total, found[len(before) :], strict=True)]
        shares = iter(torch.zeros_like(x) if share is None else share for x, share in zip(wanted, total, strict=True))
        return [next(shares) if tensor.requires_grad else None for tensor in inputs]

    def _at(self, inputs: Sequence[Tensor]) -> Chain:
        """The chain, with other tensors in the places of inputs."""
        with torch.enable_grad():
            return self.chain.on(self.problem_of(*inputs[: self.n_placed]))

    @contextmanager
    def taking(self, i: int) -> Iterator[None]:
        """Where step number `i` is taken."""
        with without_autocast(self.device.type), self.randomness.of(i):
            yield

    def _is_seen(self, i: int, attempted: AttemptedStep) -> bool:
        return self.observed[i] or attempted.found is not None

    def _refuse_changed(self, now: Tensor, start: Tensor, before: Tensor) -> None:
        """Refuses a field whose last step ends elsewhere than it did.

        Args:
            now: Where it ends, `[*lead, N]`.
            start: Where it starts.
            before: Summary of where it ended.
        """
        size = (now.detach().abs() + start.detach().abs()).sum(-1)
        if bool(((_summary(now) - before).abs() > sqrt(torch.finfo(before.dtype).eps) * size).any()):
            raise ValueError(
                f"f: has another value than in the forward solve; keep what it depends on (attributes, train and eval mode, "
                f"captured variables) until the gradient is computed, pass it as args=(...), or use sensitivity='autograd'. "
                f"It was found by sensitivity={self.name!r}, which takes the steps again for the gradient."
            )


class _Quiet:
    """A walk along a chain."""

    def __init__(self, solve: StepwiseSolve, chain: Chain, start: Tensor) -> None:
        self._solve, self._chain, self._start = solve, chain, start

    def __len__(self) -> int:
        return len(self._chain)

    def forth(self, i: int, link: Any) -> Any:
        link = self._chain.first(self._start) if link is None else link
        # The time of an event is a tensor where it is differentiable, and a number otherwise.
        as_with_gradient = self._chain.has_event(i)
        if as_with_gradient:
            link = tree_map_only(Tensor, _as_leaf, link)
        with torch.set_grad_enabled(as_with_gradient), self._solve.taking(i):
            return tree_map_only(Tensor, Tensor.detach, self._chain.advance(i, link)[0])

    def back(self, i: int, link: Any, kept: Any) -> Any:
        with torch.no_grad(), self._solve.taking(i):
            return self._chain.undo(i, link, kept)


class _StepwiseFunction(torch.autograd.Function):
    """Maps the inputs of a solve to the differentiable tensors of its last link and of what is to be kept."""

    @staticmethod
    def forward(solve: StepwiseSolve, *inputs: Tensor) -> tuple[Tensor, ...]:
        return solve.forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        solve, *tensors = inputs
        trail, solve.trail = solve.trail, None
        ctx.kept, kept = TensorTree.of(trail.kept)
        trail.kept = None
        ctx.solve, ctx.trail, ctx.n_inputs = solve, trail, len(tensors)
        # The constants, to notice when they are written to.
        ctx.n_kept = len(kept)
        ctx.save_for_backward(*tensors, solve.end, *kept, *solve.constants)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        solve, n, saved = ctx.solve, ctx.n_inputs, ctx.saved_tensors
        inputs, end, kept = saved[:n], saved[n], saved[n + 1 : n + 1 + ctx.n_kept]
        if torch.is_grad_enabled():  # somebody will differentiate again: the whole solve is repeated with its graph
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            shares = iter(_pulled_back(zip(solve.forward(*inputs), grads, strict=True), wanted, create_graph=True))
            return None, *(next(shares) if tensor.requires_grad else None for tensor in inputs)
        with hooks_set_aside(inputs):
            return None, *solve.backward(ctx.trail, ctx.kept.put(kept), end, list(grads), *inputs)


def _pulled_back(
    pairs: Iterable[tuple[Tensor, Tensor | None]], inputs: Sequence[Tensor], create_graph: bool = False
) -> Gradients:
    """Gradients with respect to the inputs, from pairs of an output and its gradient; None where there is none."""
    known = [(x, grad) for x, grad in pairs if grad is not None and x.requires_grad]
    if not known:
        return [None] * len(inputs)
    outputs, grads = zip(*known, strict=True)
    # What f captures may have been computed before; that part of the graph is passed more than once.
    options = {"retain_graph": True, "allow_unused": True, "create_graph": create_graph}
    return list(torch.autograd.grad(outputs, inputs, grads, **options))


def _differentiable(tree: Any) -> list[Tensor]:
    """The tensors of a pytree that may have gradients."""
    return TensorTree.of(tree, has_gradients)[1]


def _summary(x: Tensor) -> Tensor:
    """A sum of a state `[*lead, N]`, with weights by which no field is likely to conserve it, `[*lead]`."""
    x = x.detach()
    weights = (1 + torch.arange(x.shape[-1], device=x.device) * sqrt(2)).cos().to(real_dtype(x.dtype))
    return ((x.real + x.imag if x.is_complex() else x) * weights).sum(-1)


def _as_leaf(tensor: Tensor, wanted: bool = True) -> Tensor:
    return tensor.detach().requires_grad_(wanted and has_gradients(tensor))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
