"""Tangents, carried through the accepted steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics import Event, Solution
from dyn_numerics.arguments import positive_integer
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.posed import Posed
from dyn_numerics.ode.repetition import Chain
from dyn_numerics.ode.times import time_dtype
from dyn_sensitivity.captured_tensors import refuse_undeclared
from dyn_sensitivity.ode.held_tensors import event_functions, held_tensors
from dyn_sensitivity.ode.repeating_algorithm import RepeatingAlgorithm, TakenSteps, TakeSteps
from dyn_sensitivity.ode.second_derivatives import refuse_second_derivatives
from dyn_sensitivity.ode.seen_step import SeenStep, without_tensors
from dyn_sensitivity.ode.step_randomness import StepRandomness
from dyn_sensitivity.ode.tensor_tree import TensorTree, has_gradients
from dyn_sensitivity.substitution import Substitution

__all__ = ["ForwardMode"]


class ForwardMode(RepeatingAlgorithm):
    """Carries the derivatives by everything that wants one through the accepted steps (forward mode).

    The gradient is *exact*: that of the computed numbers with the accepted step sizes held fixed. Time grows with the
    number of elements that want gradients, which should be few; memory with that number times what the outputs are made of, and
    but for the ends of the steps not with their number. All work is done with the solve: `backward()` contracts what is there.
    The gradient cannot be differentiated again.

    Gradients reach `x0`, `t_span`, the tensors in `args` and `params`, the parameters of modules that `f` and events hold,
    and those of a trainable solver; `f` is refused if it depends on other differentiable tensors. A field that draws random
    numbers draws the same ones again. The operations of a field need forward-mode derivatives and rules for `torch.vmap`,
    which those of PyTorch have but for a few. Not inside of `torch.compile`.

    Under `torch.func` (`jvp`, `jacfwd`, and any other) and with dual numbers of `torch.autograd.forward_ad` the solve is
    differentiated by these, as with `Autograd`: along few directions, and as often as one likes.

    Args:
        chunk_size: How many derivatives are carried at once; every such chunk repeats the steps. All of them when None.
        max_inputs: Greatest number of elements that may want gradients; of a complex number there are two.

    Raises:
        ValueError: If one of them is not a positive integer.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> rate = torch.tensor(0.5, requires_grad=True)
        >>> x = odeint(lambda t, x, a: -a * x, torch.ones(1), [0.0, 1.0], args=(rate,), sensitivity="forward", rtol=1e-6).x
        >>> x[-1].sum().backward()
        >>> round(rate.grad.item(), 4)
        -0.6065

    References:
        - A. Griewank, A. Walther: Evaluating Derivatives, SIAM, 2nd ed. (2008), chapter 3.
    """

    name: ClassVar[str] = "forward"

    def __init__(self, *, chunk_size: int | None = None, max_inputs: int = 1000) -> None:
        self.chunk_size = None if chunk_size is None else positive_integer("chunk_size", chunk_size)
        self.max_inputs = positive_integer("max_inputs", max_inputs)

    def __repr__(self) -> str:
        return f"ForwardMode(chunk_size={self.chunk_size}, max_inputs={self.max_inputs})"

    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        raise ValueError(
            "sensitivity: got 'forward' inside torch.compile, expected 'autograd' or 'adjoint' there; or solve outside"
        )

    def refuse_options(self, options: dict[str, Any]) -> None:
        super().refuse_options(options)
        controller = options["controller"]
        if controller is not None and any(p.requires_grad for p in controller.parameters()):
            raise ValueError(
                f"controller: got {controller} with parameters that are trained, with sensitivity='forward', which holds "
                f"the accepted steps fixed; use sensitivity='autograd' or 'checkpoint', or freeze it"
            )

    def steps_of(
        self,
        f: Callable[..., Any],
        posed: Posed,
        posing: dict[str, Any],
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
    ) -> TakeSteps:
        inputs = self._inputs(f, posed, args, params, posing["events"])
        others = event_functions(posing["events"], posed.problem.controller)

        def take_steps(chain: Chain, start: Tensor, observed: Sequence[bool], randomness: StepRandomness) -> TakenSteps:
            steps = _Steps(chain, start, observed, randomness, inputs)
            values = [tensor.detach().contiguous() for tensor in inputs]
            taken = steps.taken(values)
            tensors, n_chunks = taken.tensors, 0
            if inputs:
                tangents, n_chunks = self._tangents(lambda *given: tuple(steps.taken(given).tensors), values)
                tensors = Attach.apply(len(inputs), len(tensors), *inputs, *tensors, *tangents)  # type: ignore[no-untyped-call]
            # Everything that was declared had no gradient: what requires one nevertheless is missing from the tangents.
            refuse_undeclared(f, taken.tensors, [], others=others)
            return taken._replace(tensors=tensors, n_evals=(1 + n_chunks) * taken.n_evals)

        return take_steps

    def _inputs(
        self,
        f: Callable[..., Any],
        posed: Posed,
        args: tuple[Any, ...],
        params: Sequence[Tensor],
        events: Event | Sequence[Event],
    ) -> list[Tensor]:
        """What gradients go to, each once.

        Raises:
            ValueError: If it has too many elements; the message says how many come from where.
        """
        _, arguments = TensorTree.of(args)
        held = held_tensors(f, posed, events, params)
        given = {"x0": [posed.start], "t_span": [posed.times], "args": arguments, "parameters": held}
        found: dict[int, Tensor] = {}
        counts = {}
        for name, tensors in given.items():
            new = {id(tensor): tensor for tensor in tensors if tensor.requires_grad and id(tensor) not in found}
            counts[name] = sum(_n_elements(tensor) for tensor in new.values())
            found |= new
        size = sum(counts.values())
        if size > self.max_inputs:
            parts = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
            raise ValueError(
                f"sensitivity: got 'forward' with {size} elements that want gradients ({parts}), expected at most "
                f"{self.max_inputs}, since each costs as much as a solve; use 'autograd' or 'adjoint', or "
                f"ForwardMode(max_inputs=...)"
            )
        return list(found.values())

    def _tangents(
        self, function: Callable[..., tuple[Tensor, ...]], values: Sequence[Tensor]
    ) -> tuple[list[Tensor], int]:
        """The derivatives of what a function returns by every element of its arguments, and how often it is called.

        Returns:
            For each value that it returns `[elements, *value.shape]`; and the number of chunks.
        """

        def along(direction: Tensor) -> tuple[Tensor, ...]:
            tangents = _split(direction, values)
            pushed: tuple[Tensor, ...] = torch.func.jvp(function, tuple(values), tuple(tangents))[1]
            return pushed

        directions = torch.eye(sum(_n_elements(value) for value in values))
        chunks = torch.split(directions, self.chunk_size or len(directions))
        try:
            with torch.no_grad():
                pushed = [torch.func.vmap(along, randomness="same")(chunk) for chunk in chunks]
        except torch.OutOfMemoryError as error:
            error.add_note("Fewer derivatives at once take less: try ForwardMode(chunk_size=...).")
            raise
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"f: cannot be differentiated in forward mode ({reason:.300}), expected operations that torch.func.jvp and "
                f"torch.vmap know; use sensitivity='autograd'"
            ) from error
        return [torch.cat(parts) for parts in zip(*pushed, strict=True)], len(chunks)


class _Steps:
    """The accepted steps of a solve, as a function of everything that gradients go to.

    Args:
        chain: The steps.
        start: State at the start, `[*lead, N]`.
        observed: Which of them are looked at.
        randomness: What they draw.
        inputs: What gradients go to.
    """

    def __init__(
        self,
        chain: Chain,
        start: Tensor,
        observed: Sequence[bool],
        randomness: StepRandomness,
        inputs: Sequence[Tensor],
    ) -> None:
        self._chain, self._start, self._observed = chain, start, observed
        self._randomness, self._inputs = randomness, inputs

    def taken(self, values: Sequence[Tensor]) -> TakenSteps:
        """Takes them with other values in the places of the inputs."""
        seen, steps, n_evals = [], [], 0
        with Substitution(self._inputs, values) as others:
            chain = self._chain.on(self._chain.problem)  # what it takes out of tensors is another now
            link = chain.first(others.of(self._start))
            for i, observed in enumerate(self._observed):
                with self._randomness.of(i):
                    link, attempted = chain.advance(i, link)
                n_evals += attempted.n_evals
                if observed or attempted.found is not None:
                    seen.append(SeenStep.of(attempted))
                    steps.append(without_tensors(attempted))
        # What is a number may be a tensor where it is differentiated; so it is one everywhere.
        number = partial(torch.tensor, dtype=time_dtype(self._start.device), device=self._start.device)
        outputs, tensors = TensorTree.of(tree_map_only(float, number, (link, seen)), has_gradients)
        return TakenSteps(outputs, tensors, steps, n_evals + chain.n_evals)


class Attach(torch.autograd.Function):
    """Gives outputs the gradient that tangents make: maps inputs, outputs and tangents to the outputs."""

    @staticmethod
    def forward(n_inputs: int, n_outputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.clone() for output in tensors[n_inputs : n_inputs + n_outputs])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        n_inputs, n_outputs, *tensors = inputs
        ctx.n_inputs = n_inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[:n_inputs], *tensors[n_inputs + n_outputs :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, tangents = ctx.saved_tensors[: ctx.n_inputs], ctx.saved_tensors[ctx.n_inputs :]
        given = [(g, tangent) for g, tangent in zip(grads, tangents, strict=True) if g is not None]
        if not given:
            return (None,) * len(ctx.needs_input_grad)
        with torch.no_grad():
            first, *others = (_contract(g, tangent) for g, tangent in given)
            found = _split(sum(others, first), inputs)
        found = refuse_second_derivatives("forward", found, [*inputs, *(g for g, _ in given)])
        return None, None, *found, *[None] * (2 * len(tangents))


def _contract(gradient: Tensor, tangents: Tensor) -> Tensor:
    """The derivatives of a loss along tangents, `[n]`, from its gradient by what these are tangents of."""
    g, tangent = _real(gradient), _real(tangents)
    return tangent.reshape(len(tangents), -1) @ g.reshape(-1)


def _real(value: Tensor) -> Tensor:
    """A tensor, a complex one with its real and imaginary parts in a last dimension."""
    return torch.view_as_real(value) if value.is_complex() else value


def _n_elements(value: Tensor) -> int:
    """How many numbers a tensor holds; a complex one is two."""
    return value.numel() * (2 if value.is_complex() else 1)


def _split(vector: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """Real numbers, `[n]`, in the shapes, dtypes and places of some tensors."""
    parts = torch.split(vector, [_n_elements(like) for like in likes])
    found = []
    for part, like in zip(parts, likes, strict=True):
        part = part.to(dtype=real_dtype(like.dtype), device=like.device)
        if like.is_complex():
            part = torch.complex(*part.reshape(-1, 2).unbind(-1))
        found.append(part.reshape(like.shape))
    return found
