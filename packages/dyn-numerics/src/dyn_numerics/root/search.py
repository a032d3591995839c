"""The search for a root or a fixed point: the loop run, what it found packed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.arguments import constant, kind_of, positive_integer
from dyn_numerics.autocast import without_autocast
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.dtypes import real_dtype, wide_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.root.iterate import Iteration, IterationState, initial_state, iterate
from dyn_numerics.root.line_search import LineSearch
from dyn_numerics.root.pose import Posed, pose
from dyn_numerics.root.residual import Residual
from dyn_numerics.root.root_solution import RootSolution
from dyn_numerics.root.root_statistics import RootStatistics
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import RootStepper
from dyn_numerics.root.termination import Termination
from dyn_numerics.transforms import under_transform, under_vmap

__all__ = ["search"]


def search(
    f: Callable[..., Any],
    z0: Any,
    *,
    name: str,
    residual: type[Residual],
    named: Mapping[str, Callable[[], RootStepper]],
    solver: str | RootStepper,
    rtol: float | Tensor | None,
    atol: float | Tensor | None,
    args: Sequence[Any],
    max_steps: int,
    line_search: str | LineSearch | None,
    termination: Termination | None,
    compact: bool,
    throw: bool,
) -> RootSolution:
    """Searches as `root_find` and `fixed_point`, whose arguments these are.

    Args:
        f: The user's function.
        z0: Start.
        name: What the function is called, for messages.
        residual: What makes a residual of it.
        named: What names of methods mean.
        solver: Method.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        args: Further arguments of `f`.
        max_steps: Greatest number of steps.
        line_search: What shortens steps.
        termination: When to end beside that.
        compact: Whether samples that have ended leave the batch.
        throw: Whether to raise an error if one fails.

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        SolverError: If a sample fails, and `throw`.
        TypeError: As the handlers.
        ValueError: As the handlers.
    """
    compiling = torch.compiler.is_compiling()
    if not (termination is None or isinstance(termination, Termination)):
        raise TypeError(f"termination: got {kind_of(termination)}, expected a dyn_numerics.Termination or None")
    posed = pose(
        f,
        z0,
        name=name,
        residual=residual,
        named=named,
        solver=solver,
        args=args,
        line_search=line_search,
    )
    layout = posed.f.layout
    if compiling and layout.dtype.is_complex:
        raise ValueError(
            f"z0: got {layout.dtype} inside torch.compile, which cannot write complex numbers in a loop; "
            f"solve outside of it, or for the real and imaginary parts"
        )
    if compact and (compiling or under_transform()):
        where = "torch.compile" if compiling else "torch.func"
        raise ValueError(f"compact: got True inside {where}, where the batch cannot shrink; try it outside")
    if termination is None:
        by_default = rtol is None and atol is None and residual.is_relative_to_start
        small_step = layout.eps**0.5 if by_default else None
        termination = Termination(step_rtol=small_step, step_atol=small_step)
    problem = Iteration(
        f=posed.f,
        stepper=posed.stepper,
        line_search=posed.line_search,
        termination=termination,
        rtol=_tolerance("rtol", rtol, layout, 4 * layout.eps),
        atol=_tolerance("atol", atol, layout, 0.0),
        max_steps=positive_integer("max_steps", max_steps),
        differentiable=False,
    )

    def found() -> RootSolution:
        with without_autocast(layout.device.type):
            return _run(posed, problem, compact)

    solution = with_constant_numbers(found) if compiling else found()
    return solution.raise_if_failed() if throw and not (compiling or under_vmap()) else solution


def _run(posed: Posed, problem: Iteration, compact: bool) -> RootSolution:
    z, value = posed.z, posed.f(posed.z)
    if posed.is_differentiated(value):
        if torch.compiler.is_compiling():
            raise ValueError(
                "z0, f: got something that requires a gradient, and dyn_numerics has none for roots inside torch.compile; "
                "use torch.no_grad()"
            )
        problem = replace(problem, differentiable=True)
    state = initial_state(problem, z, value)
    if value.requires_grad and problem.differentiable and not under_transform():
        _warn_of_start(state)
    with torch.set_grad_enabled(problem.differentiable and torch.is_grad_enabled()):
        state = iterate(problem, state, compact)
    return _packed(problem.f.layout, state)


def _warn_of_start(state: IterationState) -> None:
    """Warns where no step is taken, and so no gradient is but that of the start."""
    solved = int((state.code == RootStatus.CONVERGED.code).sum())
    if solved:
        warnings.warn(
            f"z0: solves the equations of {solved} of {len(state.z)} samples, so that they take no step and have no "
            f"gradient with respect to anything but z0; start elsewhere, as from z0 + 0.01, or use torch.no_grad()",
            stacklevel=6,
        )


def _packed(layout: StateLayout, state: IterationState) -> RootSolution:
    n_evals = torch.as_tensor(state.n_evals, device=layout.device)
    return RootSolution(
        z=layout.unflatten(state.best_z.to(layout.dtype)),
        residual=state.best_norm,
        stats=RootStatistics(n_evals=n_evals, n_steps=state.n_steps),
        status_code=state.code,
    )


def _tolerance(name: str, tolerance: float | Tensor | None, layout: StateLayout, least: float) -> float | Tensor:
    """A tolerance as a number or `[batch]`; by default the root of the relative spacing of numbers."""
    if tolerance is None:
        return float(layout.eps**0.5)
    expected = (
        "a number or tensor that is not negative" if not least else f"at least 4 eps, {least:.3g} in {layout.dtype}"
    )
    if isinstance(tolerance, Tensor):
        if (
            not tolerance.is_floating_point()
            or tolerance.dim() > 1
            or (tolerance.dim() and tolerance.shape != layout.lead)
        ):
            raise ValueError(
                f"{name}: got dtype {tolerance.dtype}, shape {list(tolerance.shape)}, expected a floating tensor, "
                f"[] or {list(layout.lead)}"
            )
        if not (torch.compiler.is_compiling() or under_vmap()) and not bool((tolerance >= least).all()):
            raise ValueError(f"{name}: got values below {least:.3g} or NaN, expected {expected}")
        dtype = real_dtype(wide_dtype(layout.dtype))
        # A copy, since one tensor may be both tolerances, and a compiled loop takes no two views of it.
        return tolerance.detach().to(dtype=dtype, device=layout.device).expand(layout.lead).clone()
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real):
        raise TypeError(f"{name}: got a {type(tolerance).__name__}, expected {expected}")
    if not tolerance >= least:
        hint = ": rounding lets no residual be known better; loosen it, or use float64" if least else ""
        raise ValueError(f"{name}: got {tolerance}, expected {expected}{hint}")
    number: float = constant(float(tolerance))
    return number
