"""Exact gradients of a solve whose steps are taken again one by one, from the last to the first.

The solve itself runs without gradient. Its steps are a chain of pure functions from link to link; to pull a gradient back
through one of them takes the link before it, and nothing of the others. Algorithms differ in where they have it from.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import sqrt
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

import dyn_numerics
from dyn_numerics import Solution, Stepper
from dyn_numerics.autocast import autocast_of_caller, without_autocast
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.odeint import Repeat, solve_repeating
from dyn_numerics.ode.posed import Posed, pose
from dyn_numerics.ode.repetition import Chain, replay
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.saver import Saver
from dyn_numerics.per_sample import bare_arguments
from dyn_numerics.transforms import in_forward_mode, under_transform
from dyn_sensitivity.captured_tensors import captured_buffers, refuse_undeclared
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.held_tensors import held_tensors
from dyn_sensitivity.ode.recalled_field import hooks_set_aside
from dyn_sensitivity.ode.seen_step import SeenStep
from dyn_sensitivity.ode.step_randomness import StepRandomness, generator_states
from dyn_sensitivity.ode.tensor_tree import TensorTree, has_gradients

__all__ = ["StepwiseAlgorithm", "Trail", "Walk"]

Gradients = list[Tensor | None]


class Walk(Protocol):
    """The steps without gradient, as the solve took them."""

    def __len__(self) -> int: ...

    def forth(self, i: int, link: Any) -> Any:
        """The link behind step number `i`, from the one before it; None stands for the link before the first."""

    def back(self, i: int, link: Any, kept: Any) -> Any:
        """The link before step number `i`, from the one behind it and what `Chain.to_undo` returned."""


class Trail(Protocol):
    """What is remembered of a chain while it runs forwards, so that it can be gone backwards."""

    kept: Any
    """What it remembers, a pytree."""

    def passed(self, i: int, link: Any, attempted: AttemptedStep) -> None:
        """Told of every step in order.

        Args:
            i: Its number.
            link: The link before it.
            attempted: What observers see of it.
        """

    def arrived(self, link: Any) -> None:
        """Told of the link behind the last step."""

    def back(self, walk: Walk, kept: Any) -> Iterator[tuple[int, Any]]:
        """Yields the numbers of the steps from the last to the second, and the links before them.

        Args:
            walk: Takes steps.
            kept: What it remembers, which it leaves as it is.
        """


class StepwiseAlgorithm(SensitivityAlgorithm):
    """An algorithm that pulls back single steps. Subclasses say where the states before them come from.

    Attributes:
        name: As users call it.
    """

    exact: ClassVar[bool] = True
    name: ClassVar[str]

    @abstractmethod
    def trail(self, chain: Chain) -> Trail:
        """What remembers the chain."""

    def refuse(self, solver: Stepper) -> None:
        """Refuses a method whose steps it cannot go back.

        Raises:
            ValueError: If it is one.
        """

    def refuse_random(self) -> None:
        """Refuses a field that draws random numbers, if the algorithm cannot make it draw them again.

        Raises:
            ValueError: If it cannot.
        """

    @abstractmethod
    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        """As `solve`, inside of torch.compile with gradients enabled."""

    def solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        *,
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        **options: Any,
    ) -> Solution:
        """As `SensitivityAlgorithm.solve`.

        Raises:
            ValueError: If gradients are wanted and the algorithm does not go with the solver, estimates of the solver are to
                be kept, samples are to leave the batch, or `f` captures a differentiable tensor that it does not know.
        """
        if not torch.is_grad_enabled():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        if torch.compiler.is_compiling():
            return self.solve_compiled(f, x0, t_span, args, options)
        names = ("solver", "rtol", "atol", "step_size", "stepping", "controller", "save", "max_steps", "events")
        posing = {name: options[name] for name in names}
        posed = pose(f, x0, t_span, args=args, **posing)
        self.refuse(posed.problem.stepper)
        self._refuse_unsupported(options)
        arguments, wanted = TensorTree.of(args, lambda tensor: tensor.requires_grad)
        inputs = [posed.times, posed.start, *wanted, *held_tensors(f, posed, options["events"], params)]
        # Transforms and forward mode differentiate the plain solve, which has the same gradient.
        if under_transform() or in_forward_mode() or not any(tensor.requires_grad for tensor in inputs):
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        leaves = tree_leaves(bare_arguments(args))
        constants = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.requires_grad]
        constants += captured_buffers(f)
        generators = generator_states(posed.layout.device)
        solve = _Solve(self, f, posed, posing, arguments, len(wanted), constants, generators)
        handed = {name: options[name] for name in ("progress", "callbacks", "throw")}
        return solve_repeating(solve.repeating(inputs), posed, **handed)

    def _refuse_unsupported(self, options: dict[str, Any]) -> None:
        if Save.of(options["save"]).internals:
            raise ValueError(
                f"save: got internals=True with sensitivity={self.name!r}, which keeps no estimates of single steps; use "
                f"sensitivity='autograd'"
            )
        if options["compact"]:
            raise ValueError(
                f"compact: got True with sensitivity={self.name!r}, which repeats the steps of the whole batch; leave it out, "
                f"or use sensitivity='autograd'"
            )


class _Solve:
    """A solve whose steps are pulled back one by one.

    Its inputs are the output times, the state at the start, the tensors in args and what else wants gradients.

    Args:
        algorithm: The algorithm.
        f: The user's field.
        posed: The problem as the user posed it.
        posing: Arguments of `pose`.
        arguments: Arguments of the field, without the tensors that want gradients.
        n_wanted: Number of these.
        constants: What the field depends on that wants no gradient: tensors in args, and buffers of modules that it holds.
        generators: States of the random generators before the solve.

    Attributes:
        trail: What remembers the chain, until it is handed over.
        constants: As given.
        end: Summary of the last states, by which a field that changed is noticed.
    """

    end: Tensor

    def __init__(
        self,
        algorithm: StepwiseAlgorithm,
        f: Callable[..., Any],
        posed: Posed,
        posing: dict[str, Any],
        arguments: TensorTree,
        n_wanted: int,
        constants: list[Tensor],
        generators: list[Tensor],
    ) -> None:
        self._algorithm, self._f, self._layout, self._posing = algorithm, f, posed.layout, posing
        self._arguments, self._n_wanted, self._generators = arguments, n_wanted, generators
        self._autocast = autocast_of_caller(posed.layout.device.type)
        self.trail: Trail | None = None
        self.constants = constants

    def repeating(self, inputs: Sequence[Tensor]) -> Repeat:
        """What repeats the steps of the solve as one differentiable function, and shows them to what keeps the outputs.

        Args:
            inputs: Everything that gradients go to.
        """

        def repeat(chain: Chain, start: Tensor, saver: Saver, observed: Sequence[bool]) -> tuple[Tensor, Any, int]:
            if not len(chain):
                return replay(chain, start, [saver])
            self._chain, self._observed = chain, observed
            self._randomness = StepRandomness(self._generators, start.device)
            if self._randomness:
                self._algorithm.refuse_random()
            tensors = _StepwiseFunction.apply(self, *inputs)  # type: ignore[no-untyped-call]
            last, seen = self._outputs.put(tensors)
            for attempted, values in zip(self._steps, seen.values(), strict=True):
                saver.observe(values.shown(attempted))
            return last.x, last.carry, self._n_evals

        return repeat

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Takes all steps, and returns the differentiable tensors of the last link and of what is to be kept."""
        chain, differentiable = self._at(*inputs), torch.is_grad_enabled()
        trail = self._algorithm.trail(chain)
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
                if self._is_observed(i, attempted):
                    seen[i] = SeenStep.of(attempted)
                    steps.append(replace(SeenStep().shown(attempted), x0=None))  # type: ignore[arg-type]
            if looked_at:
                refuse_undeclared(self._f, _differentiable((link, seen)), known)
                link, seen = tree_map_only(Tensor, Tensor.detach, (link, seen))
            if not differentiable:
                trail.passed(i, before, attempted)
            n_evals += attempted.n_evals
        outputs, tensors = TensorTree.of((link, seen), has_gradients)
        if not differentiable:
            trail.arrived(link)
            self.trail, self._steps, self._outputs = trail, steps, outputs
            self.end = _summary(link.x)
            self._n_link = len(_differentiable(link))
            self._n_seen = {i: len(_differentiable(values)) for i, values in seen.items()}
            self._n_evals = n_evals + chain.n_evals
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
        count = 2 + self._n_wanted
        inputs = (*(_as_leaf(tensor, tensor.requires_grad) for tensor in inputs[:count]), *inputs[count:])
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        chain = self._at(*inputs)

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
                if self._is_observed(i, attempted):
                    made = made + _differentiable(SeenStep.of(attempted))
                    cotangents = cotangents + of_seen[i]
                refuse_undeclared(self._f, made, [*before, *wanted])
                found = _pulled_back(zip(made, cotangents, strict=True), [*before, *wanted])
            if i == len(chain) - 1:
                self._refuse_changed(after.x, link.x, end)
            of_link = found[: len(before)]
            total = [_sum(a, b) for a, b in zip(total, found[len(before) :], strict=True)]
        shares = iter(torch.zeros_like(x) if share is None else share for x, share in zip(wanted, total, strict=True))
        return [next(shares) if tensor.requires_grad else None for tensor in inputs]

    def _at(self, times: Tensor, start: Tensor, *tensors: Tensor) -> Chain:
        """The chain, with tensors in the places of those in args; parameters stay where they are."""
        args = self._arguments.put(tensors[: self._n_wanted])
        with torch.enable_grad(), self._autocast():
            posed = pose(self._f, self._layout.unflatten(start), times, args=args, **self._posing)
            return self._chain.on(posed.problem)

    @contextmanager
    def taking(self, i: int) -> Iterator[None]:
        """Where step number `i` is taken."""
        with without_autocast(self._layout.device.type), self._randomness.of(i):
            yield

    def _is_observed(self, i: int, attempted: AttemptedStep) -> bool:
        return self._observed[i] or attempted.found is not None

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
                f"It was found by sensitivity={self._algorithm.name!r}, which takes the steps again for the gradient."
            )


class _Quiet:
    """A walk along a chain."""

    def __init__(self, solve: _Solve, chain: Chain, start: Tensor) -> None:
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
    def forward(solve: _Solve, *inputs: Tensor) -> tuple[Tensor, ...]:
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
