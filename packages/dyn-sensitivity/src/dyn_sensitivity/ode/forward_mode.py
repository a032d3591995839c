"""Tangents, solved for together with the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only, tree_structure, tree_unflatten

import dyn_numerics
from dyn_numerics import Event, Save, Solution, SplitField, Stepper
from dyn_numerics.arguments import check_initial_state, positive_integer
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.arguments import check_field, time_span
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.per_sample import bare_arguments
from dyn_numerics.transforms import in_forward_mode, under_transform
from dyn_sensitivity.captured_tensors import captured_parameters, refuse_undeclared
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.second_derivatives import refuse_second_derivatives
from dyn_sensitivity.ode.step_randomness import StepRandomness, generator_states
from dyn_sensitivity.substitution import Substitution

__all__ = ["ForwardMode"]


class ForwardMode(SensitivityAlgorithm):
    """Carries the derivatives by everything that wants one along with the state (forward mode).

    The gradient is *exact*: that of the computed numbers with the accepted step sizes held fixed. Time grows with the
    number of elements that want gradients, which should be few, and memory with that number times the outputs, but not with the number
    of steps. All work is done with the solve: `backward()` contracts what is there. The gradient cannot be differentiated again.

    Gradients reach `x0`, `t_span`, the tensors in `args` and `params`, the parameters of modules that `f` holds, and those
    of a trainable solver. The states at `t_span`, and times and states of events have them. Operations of the field
    need forward-mode derivatives and rules for `torch.vmap`, which those of PyTorch have but for a few.

    Under `torch.func` (`jvp`, `jacfwd`, and any other) and with dual tensors of `torch.autograd.forward_ad` the solve is
    differentiated by these, as with `"autograd"`: by few directions, and as often as one likes.

    Args:
        chunk_size: How many tangents are carried at once; every such chunk repeats the solve. All of them when None.
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

    exact: ClassVar[bool] = True

    def __init__(self, *, chunk_size: int | None = None, max_inputs: int = 1000) -> None:
        self.chunk_size = None if chunk_size is None else positive_integer("chunk_size", chunk_size)
        self.max_inputs = positive_integer("max_inputs", max_inputs)

    def __repr__(self) -> str:
        return f"ForwardMode(chunk_size={self.chunk_size}, max_inputs={self.max_inputs})"

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
            ValueError: If gradients are wanted inside of torch.compile, of too many elements, through an operation without
                a forward-mode derivative, of a trainable controller, of something else than states and events, or of a
                tensor that `f` captures and nobody declared.
        """
        if torch.is_grad_enabled() and torch.compiler.is_compiling():
            raise ValueError(
                "sensitivity: got 'forward' inside torch.compile, expected 'autograd' or 'adjoint' there; or solve outside"
            )
        if not torch.is_grad_enabled() or under_transform() or in_forward_mode():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        check_field(f, len(args), stepper(options["solver"]))
        self._refuse_unsupported(options)
        t, times = _differentiable_times(t_span, x0, options["stepping"] == "per_sample")
        events = options["events"] if isinstance(options["events"], Sequence) else [options["events"]]
        inputs = self._inputs(
            x0=x0, t_span=times, args=args, params=params, solver=options["solver"], f=f, events=events
        )

        def solved(values: Sequence[Tensor], observe: bool) -> Solution:
            """The solution with other values in the places of the inputs."""
            # Who watches the solve watches the first one.
            changed = {} if observe else {"progress": None, "callbacks": None, "compact": False}
            changed["events"] = [_observed_event(event) for event in events] if observe else events
            with Substitution(inputs, values) as others:
                start, arguments = (tree_map_only(Tensor, others.of, given) for given in (x0, args))
                field = _observed(f) if observe else f
                return dyn_numerics.odeint(field, start, others.of(times), args=arguments, **{**options, **changed})

        values = [tensor.detach() for tensor in inputs]
        with torch.no_grad():
            generators = generator_states(check_initial_state(x0).device)
            solution = solved(values, observe=True)
            if not inputs:
                return solution
            if StepRandomness(generators, solution.t.device):
                raise ValueError(
                    "f: draws random numbers, such as a dropout in training mode, with sensitivity='forward', whose tangents "
                    "would be of others; use sensitivity='checkpoint', or eval()"
                )
            outputs = _outputs(solution)
            tangents = self._tangents(lambda given: _outputs(solved(given, observe=False)), values, outputs)
        attached = Attach.apply(len(inputs), len(outputs), *inputs, *outputs, *tangents)  # type: ignore[no-untyped-call]
        kept: dict[str, Any] = {"_resumption": "of sensitivity='forward', expected one of sensitivity='autograd'"}
        return replace(_with_outputs(solution, attached), **kept, **({} if t is None else {"t": t}))

    def _refuse_unsupported(self, options: dict[str, Any]) -> None:
        controller = options["controller"]
        if controller is not None and any(p.requires_grad for p in controller.parameters()):
            raise ValueError(
                f"controller: got {controller} with parameters that are trained, with sensitivity='forward', which holds "
                f"the accepted steps fixed; use sensitivity='autograd', or freeze it"
            )
        if not Save.of(options["save"]).only_outputs:
            raise ValueError(
                f"save: got {options['save']!r} with sensitivity='forward', which differentiates the states at t_span and "
                f"at events alone; use save='t_span', sensitivity='autograd' or torch.no_grad()"
            )

    def _inputs(self, *, f: Callable[..., Any], events: Sequence[Event], **given: Any) -> list[Tensor]:
        """What gradients go to, each once.

        Raises:
            ValueError: If it has too many elements; the message says how many come from where.
        """
        functions = [f, *(part for event in events for part in (event.condition, event.jump) if part is not None)]
        solver = given.pop("solver")
        tensors = {name: tree_leaves(bare_arguments((value,))) for name, value in given.items()}
        tensors["f"] = [p for function in functions for p in captured_parameters(function)]
        tensors["solver"] = list(solver.parameters()) if isinstance(solver, Stepper) else []
        found: dict[int, Tensor] = {}
        counts = {}
        for name, candidates in tensors.items():
            new = {id(p): p for p in candidates if isinstance(p, Tensor) and p.requires_grad and id(p) not in found}
            counts[name] = sum(_n_elements(p) for p in new.values())
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
        self, push: Callable[[Sequence[Tensor]], Sequence[Tensor]], values: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """The derivatives of outputs by every element of some values, `[elements, *output.shape]` each."""

        def along(direction: Tensor) -> tuple[Tensor, ...]:
            tangents = _split(direction, values)
            _, pushed = torch.func.jvp(lambda *given: tuple(push(given)), tuple(values), tuple(tangents))
            return pushed  # type: ignore[no-any-return]

        directions = torch.eye(sum(_n_elements(value) for value in values))
        chunks = directions.split(self.chunk_size or len(directions))
        try:
            pushed = [torch.func.vmap(along, randomness="same")(chunk) for chunk in chunks]
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"f: cannot be differentiated in forward mode ({reason:.300}), expected operations that torch.func.jvp and "
                f"torch.vmap know; use sensitivity='autograd'"
            ) from error
        # A transform does not see how many events there are and leaves rows behind them.
        tangents = [
            torch.cat(parts)[:, : len(output)] for parts, output in zip(zip(*pushed, strict=True), outputs, strict=True)
        ]
        return [torch.where(torch.isfinite(o), tangent, 0) for o, tangent in zip(outputs, tangents, strict=True)]


class Attach(torch.autograd.Function):
    """Gives outputs the gradient that tangents make: maps inputs, outputs and tangents to the outputs."""

    @staticmethod
    def forward(n_inputs: int, n_outputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.clone() for output in tensors[n_inputs : n_inputs + n_outputs])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.n_inputs, ctx.n_outputs, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, n, m = ctx.saved_tensors, ctx.n_inputs, ctx.n_outputs
        inputs, outputs, tangents = tensors[:n], tensors[n : n + m], tensors[n + m :]
        given = [(g, o, tangent) for g, o, tangent in zip(grads, outputs, tangents, strict=True) if g is not None]
        if not given:
            return (None,) * len(ctx.needs_input_grad)
        with torch.no_grad():
            # Where there is no value nothing is differentiated.
            parts = [_contract(torch.where(torch.isfinite(o), g, 0), tangent) for g, o, tangent in given]
            found = _split(sum(parts[1:], parts[0]), inputs)
        found = refuse_second_derivatives("forward", found, [*inputs, *(g for g, _, _ in given)])
        return None, None, *found, *[None] * (2 * m)


def _contract(gradient: Tensor, tangents: Tensor) -> Tensor:
    """The derivatives of a loss along tangents, `[n]`, from its gradient by what these are tangents of."""
    g, tangent = (_real(value).to(gradient.real.dtype) for value in (gradient, tangents))
    return tangent.reshape(len(tangents), -1) @ g.reshape(-1)


def _real(value: Tensor) -> Tensor:
    """A tensor, a complex one with its real and imaginary parts in a last dimension."""
    return torch.view_as_real(value) if value.is_complex() else value


def _n_elements(value: Tensor) -> int:
    """How many numbers a tensor holds; a complex one is two."""
    return value.numel() * (2 if value.is_complex() else 1)


def _split(vector: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """Real numbers, `[n]`, in the shapes, dtypes and places of some tensors."""
    parts = vector.split([_n_elements(like) for like in likes])
    found = []
    for part, like in zip(parts, likes, strict=True):
        part = part.to(dtype=real_dtype(like.dtype), device=like.device)
        if like.is_complex():
            part = torch.complex(*part.reshape(-1, 2).unbind(-1))
        found.append(part.reshape(like.shape))
    return found


def _outputs(solution: Solution) -> list[Tensor]:
    """What of a solution has gradients."""
    events = [(event.t, event.x, event.x_after) for event in solution.events]
    outputs: list[Tensor] = tree_leaves((solution.x, events))
    return outputs


def _with_outputs(solution: Solution, outputs: Sequence[Tensor]) -> Solution:
    """A solution with others in the places of what has gradients."""
    events = [(event.t, event.x, event.x_after) for event in solution.events]
    x, found = tree_unflatten(outputs, tree_structure((solution.x, events)))
    records = [
        replace(record, t=t, x=x, x_after=after) for record, (t, x, after) in zip(solution.events, found, strict=True)
    ]
    return replace(solution, x=x, events=tuple(records))


def _observed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of time, state and arguments without gradient, which refuses to depend on what nobody replaced.

    Everything that was declared comes without gradient: what requires one nevertheless would be missing from the tangents.
    """
    if isinstance(function, SplitField):
        return SplitField(_observed(function.a), _observed(function.b))

    def observed(t: Tensor, x: Any, *args: Any) -> Any:
        if under_transform():  # the method differentiates it
            return function(t, x, *args)
        with torch.enable_grad():
            value = function(t, x, *args)
        found = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if found:  # or it asked for gradients of its arguments itself
            refuse_undeclared(function, found, [leaf for leaf in (t, *tree_leaves(x)) if leaf.requires_grad])
        return tree_map_only(Tensor, Tensor.detach, value)

    return observed


def _observed_event(event: Event) -> Event:
    """An event whose functions are observed."""
    twin = copy(event)
    twin.condition = _observed(event.condition)
    twin.jump = None if event.jump is None else _observed(event.jump)
    return twin


def _differentiable_times(
    t_span: Tensor | Sequence[float], x0: Any, per_sample: bool
) -> tuple[Tensor | None, Tensor | Sequence[float]]:
    """The times as the user gets them back, if they have a gradient, and those to solve with: a tensor, if they have."""
    if not any(isinstance(t, Tensor) and t.requires_grad for t in tree_leaves(t_span)):
        return None, t_span
    t, inner, _ = time_span(t_span, check_initial_state(x0, per_sample))
    return t, t_span if isinstance(t_span, Tensor) else inner
