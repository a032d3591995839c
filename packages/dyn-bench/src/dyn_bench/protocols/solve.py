"""A solve that is ready to be timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dyn_bench.protocols.compilation import compile_whole
from dyn_numerics import Solution, Stepper, odeint
from dyn_sensitivity import SensitivityAlgorithm
from dyn_sensitivity import odeint as differentiable_odeint

__all__ = ["Solve", "dyn_gradient", "dyn_solve", "values_and_evaluations", "values_of"]


@dataclass(frozen=True)
class Solve:
    """A solve, by this library or another, with everything prepared that is not its work.

    Attributes:
        run: Solves once, and waits until it is done.
        values: Makes of what `run` returned the states `[T, *x0.shape]`, or other values that are right or wrong; None
            where it returns none.
        evaluations: Makes of it how often the field was called; None where nobody counts.
        counts: Makes of it what else was counted, by name: the steps of the slowest sample, factorisations of all.
    """

    run: Callable[[], Any]
    values: Callable[[Any], Tensor] | None = None
    evaluations: Callable[[Any], int] | None = None
    counts: Callable[[Any], dict[str, int]] | None = None

    def judged(self, error: Callable[[Tensor], Tensor]) -> Solve:
        """The same solve, with what a function makes of its values in their place: errors, whose right values are 0."""
        values = self.values
        return self if values is None else replace(self, values=lambda result: error(values(result)))


def dyn_solve(
    field: Callable[..., Tensor],
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    floor: float = 1.0,
    args: Sequence[Any] = (),
    solver: str | Stepper = "dopri5",
    stepping: Literal["joint", "per_sample"] = "joint",
    max_steps: int | None = None,
    compiled: bool = False,
    in_python: bool = False,
) -> Solve:
    """Prepares a solve by this library, without gradient.

    Args:
        field: Vector field `f(t, x, *args)`.
        x0: Initial states `[batch, n]`, or one of any shape.
        t: Output times `[T]`, float64; a method of fixed steps takes one between any two.
        tolerance: Relative tolerance; a method of fixed steps knows none.
        floor: Absolute tolerance over the relative one, in state units.
        args: Further arguments of the field.
        solver: The method, or its name.
        stepping: One step size for the batch, or one for each sample.
        max_steps: Greatest number of steps; None for the library's own.
        compiled: Whether the solve is compiled, or eager.
        in_python: Whether Python calls the kernels of a compiled solve (`compile_whole`).

    Raises:
        UnavailableError: If it is to be compiled and this torch cannot.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.solve import dyn_solve
        >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> solve = dyn_solve(lambda t, x: -x, torch.ones(1, 1), t, tolerance=1e-6)
        >>> round(solve.values(solve.run())[-1].item(), 4)
        0.3679
    """
    options: dict[str, Any] = {"args": args, "solver": solver, "stepping": stepping, "max_steps": max_steps}

    def solve(x0: Tensor, t: Tensor) -> Solution:
        return odeint(field, x0, t, rtol=tolerance, atol=tolerance * floor, **options)

    call = compile_whole(solve, in_python) if compiled else solve

    def run() -> Any:
        with torch.no_grad():
            return call(x0, t)

    return Solve(
        run=run,
        values=lambda solution: solution.raise_if_failed().x,
        evaluations=lambda solution: int(solution.stats.n_evals),
        counts=_counts,
    )


def _counts(solution: Solution) -> dict[str, int]:
    counts = {"steps": int(solution.stats.n_steps.max())}
    if solution.stats.n_factorisations is not None:
        counts["factorisations"] = int(solution.stats.n_factorisations.sum())
    return counts


def dyn_gradient(
    field: nn.Module,
    x0: Tensor,
    t: Tensor,
    *,
    tolerance: float,
    loss: Callable[[Tensor], Tensor],
    sensitivity: str | SensitivityAlgorithm = "autograd",
    compiled: bool = False,
) -> Solve:
    """Prepares the gradient of a loss of the last states, by dopri5 of this library.

    Args:
        field: Vector field `f(t, x)`; its parameters get the gradient, which comes as one vector.
        x0: Initial states `[batch, n]`.
        t: Output times `[T]`, float64.
        tolerance: Relative and absolute tolerance.
        loss: A function of `[batch, n]`.
        sensitivity: How the gradient is computed.
        compiled: Whether loss and gradient are compiled, or eager.

    Raises:
        UnavailableError: If they are to be compiled and this torch cannot.
    """

    def solve(x0: Tensor, t: Tensor) -> Tensor:
        options: Any = {"solver": "dopri5", "rtol": tolerance, "atol": tolerance, "sensitivity": sensitivity}
        return loss(differentiable_odeint(field, x0, t, **options).x[-1])

    call = compile_whole(solve) if compiled else solve
    parameters = list(field.parameters())

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(x0, t), parameters)

    return Solve(run=run, values=lambda gradient: torch.cat([part.flatten() for part in gradient]))


def values_of(solve: Solve) -> Tensor:
    """Solves once and returns the values.

    Raises:
        ValueError: If it has none.
    """
    if solve.values is None:
        raise ValueError("solve: got one without values, expected one with")
    return solve.values(solve.run())


def values_and_evaluations(solve: Solve) -> tuple[Tensor, int]:
    """Solves once and returns the values, and how often the function was called for them.

    Raises:
        ValueError: If it has none, or nobody counts.
    """
    if solve.values is None or solve.evaluations is None:
        raise ValueError("solve: got one without values or evaluations, expected one with both")
    result = solve.run()
    return solve.values(result), solve.evaluations(result)
