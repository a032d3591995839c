"""Several algorithms for gradients, tried on a user's own problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dyn_numerics import Solution, SplitField
from dyn_numerics.arguments import extra_arguments, kind_of, positive_integer
from dyn_numerics.ode.arguments import choose_controller
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_sensitivity.declared_tensors import declared_tensors
from dyn_sensitivity.gradient_comparison import GradientComparison, MeasuredGradient
from dyn_sensitivity.live_bytes import LiveBytes
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.odeint import ALGORITHMS, algorithm, odeint
from dyn_sensitivity.wanted_gradients import wanted_gradients

__all__ = ["compare_gradients"]

Choice = str | SensitivityAlgorithm
FINER_TOLERANCE, FINER_STEPS = 1e-3, 16  # of the reference


def compare_gradients(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    loss: Callable[[Solution], Tensor],
    algorithms: Sequence[Choice] | Mapping[str, Choice] | None = None,
    reference: Mapping[str, Any] | None = None,
    repeats: int = 3,
    args: Sequence[Any] = (),
    params: Sequence[Tensor] = (),
    **options: Any,
) -> GradientComparison:
    """Computes one gradient by several algorithms, and measures their errors, times, memory and evaluations.

    The gradient is that of a loss with respect to everything that requires one: `x0`, `t_span`, tensors in `args` and `params`,
    the parameters of modules that `f` holds, and those of the solver and the controller. Nothing is added to their `.grad`.
    An algorithm that refuses the problem, or fails, gets a row with its sentence.

    Args:
        f: Vector field, as in `dyn_sensitivity.odeint`.
        x0: Initial state, as there.
        t_span: Output times, as there.
        loss: A function of the `Solution` that returns a real number, as a tensor `[]`.
        algorithms: Names or algorithms, or a dictionary of these by what their rows are to be called; all names when None.
        reference: Options of the solve whose gradient, by `"autograd"`, is taken for the right one, where they differ from the
            solve's own. By default tolerances are a thousandth of those, or fixed steps a sixteenth. Errors
            below the rounding of the state's dtype are none: compare in float64.
        repeats: How often each algorithm is timed, in turn with the others; the median counts.
        args: Further arguments of `f`.
        params: Tensors that `f` captures and that want gradients.
        **options: Everything else that `odeint` takes.

    Returns:
        A row for each algorithm; prints as a table.

    Raises:
        SolverError: If the reference does not reach its end.
        TypeError: If `loss` is no function, the algorithms or the reference are no collection of such, or one of the algorithms
            is neither a name nor an algorithm.
        ValueError: If there is no algorithm of such a name, two print alike, nothing requires a gradient, or the loss is no number.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import compare_gradients
        >>> net, x0 = torch.nn.Linear(2, 2).double(), torch.ones(5, 2).double()
        >>> table = compare_gradients(
        ...     lambda t, x: net(x), x0, [0.0, 1.0], loss=lambda sol: sol.x[-1].sum(), algorithms=["autograd", "adjoint"]
        ... )
        >>> [(row.algorithm, row.error < 0.01, row.backward_evals > 0) for row in table.rows]
        [('autograd', True, False), ('adjoint', True, True)]
    """
    if not callable(loss):
        raise TypeError(f"loss: got {kind_of(loss)}, expected a function of the Solution, lambda sol: sol.x[-1].sum()")
    if not isinstance(reference, Mapping | None):
        raise TypeError(
            f"reference: got {kind_of(reference)}, expected options of odeint; try reference={{'rtol': 1e-10}}"
        )
    positive_integer("repeats", repeats)
    chosen = _by_name(list(ALGORITHMS) if algorithms is None else algorithms)
    problem = {"args": extra_arguments(args), "params": declared_tensors(params), **options}
    inputs = wanted_gradients(f, x0, t_span, **problem)

    def gradient(f: Callable[..., Any] = f, between: Callable[[], object] = lambda: None, /, **changed: Any) -> Tensor:
        value = loss(odeint(f, x0, t_span, **{**problem, **changed}))
        _check_loss(value)
        between()
        found = torch.autograd.grad(value, inputs, allow_unused=True)
        return _as_vector(inputs, found)

    exact = gradient(**{"sensitivity": "autograd", "max_steps": None, **_refined(t_span, options), **(reference or {})})
    rows = {}
    for name, choice in chosen.items():
        try:
            rows[name] = _measured(name, f, gradient, choice, exact)
        except (RuntimeError, TypeError, ValueError) as error:  # SolverError is one of the first
            rows[name] = MeasuredGradient(name, failure=" ".join(str(error).split()))
    device = tree_leaves(x0)[0].device
    seconds: dict[str, list[float]] = {name: [] for name, row in rows.items() if row.failure is None}
    for _ in range(repeats):
        for name, times in seconds.items():
            times.append(_seconds(partial(gradient, sensitivity=chosen[name]), device))
    timed = {name: replace(rows[name], seconds=median(times)) for name, times in seconds.items()}
    return GradientComparison(tuple({**rows, **timed}.values()))


def _by_name(choices: Iterable[Choice]) -> dict[str, SensitivityAlgorithm]:
    if isinstance(choices, (str, SensitivityAlgorithm)) or not isinstance(choices, Iterable):
        raise TypeError(
            f"algorithms: got {kind_of(choices)}, expected several names or algorithms, or a dictionary of these; try "
            f"algorithms=['autograd', 'adjoint']"
        )
    if isinstance(choices, Mapping):
        return {name: algorithm(choice) for name, choice in choices.items()}
    named: dict[str, SensitivityAlgorithm] = {}
    for choice in choices:
        name = choice if isinstance(choice, str) else repr(choice)
        if name in named:
            raise ValueError(
                f"algorithms: got two called {name}, expected one; name them as algorithms={{'this': ..., 'that': ...}}"
            )
        named[name] = algorithm(choice)
    return named


def _refined(t_span: Tensor | Sequence[float], options: dict[str, Any]) -> dict[str, Any]:
    """Options of a solve that is more precise by orders of magnitude."""
    method, step = stepper(options.get("solver", "tsit5")), options.get("step_size")
    if choose_controller(options.get("controller"), method, step).adaptive:
        tolerances = {"rtol": options.get("rtol", 1e-3), "atol": options.get("atol", 1e-6)}
        return {name: FINER_TOLERANCE * tolerance for name, tolerance in tolerances.items()}
    if step is None:
        times = torch.as_tensor(t_span).detach()
        lengths = times.diff(dim=0).abs()
        step = lengths[lengths > 0].min().item()
    return {"step_size": step / FINER_STEPS}


def _check_loss(value: object) -> None:
    if not isinstance(value, Tensor) or value.dim() or value.is_complex() or not value.requires_grad:
        got = f"one of shape {list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else kind_of(value)
        raise ValueError(
            f"loss: got {got}, expected a real tensor of shape [] that depends on the solution, lambda sol: sol.x[-1].sum()"
        )


def _as_vector(inputs: Sequence[Tensor], found: Sequence[Tensor | None]) -> Tensor:
    parts = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    real = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return torch.cat([part.detach().double().flatten() for part in real])


def _measured(
    name: str, f: Callable[..., Any], gradient: Callable[..., Tensor], choice: SensitivityAlgorithm, exact: Tensor
) -> MeasuredGradient:
    """A gradient with its error, memory and calls of the field; nobody times it yet."""
    gradient(sensitivity=choice)  # what is made once and kept for later solves is none of this one's
    counter, between = _Counter(), []
    with LiveBytes() as memory:
        found = gradient(counter.watch(f), lambda: between.extend([memory.live, counter.calls]), sensitivity=choice)
        peak = memory.peak
    kept, calls = between
    return MeasuredGradient(
        name,
        error=float((found - exact).norm() / exact.norm()),
        kept_bytes=kept,
        peak_bytes=peak,
        forward_evals=calls,
        backward_evals=counter.calls - calls,
    )


class _Counter:
    """Counts the calls of a field, or of both functions of a split one."""

    def __init__(self) -> None:
        self.calls = 0

    def watch(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """The field, counted."""
        if isinstance(f, SplitField):
            return SplitField(self.watch(f.a), self.watch(f.b))

        def counted(t: Tensor, x: Any, *args: Any) -> Any:
            self.calls += 1
            return f(t, x, *args)

        return counted


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return perf_counter() - start
