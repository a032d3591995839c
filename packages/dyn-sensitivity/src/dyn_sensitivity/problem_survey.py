"""What is to be known of a problem before an algorithm for its gradient is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from dyn_numerics import Save, Solution, Steps, StiffnessError
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_sensitivity.live_bytes import LiveBytes
from dyn_sensitivity.ode.odeint import odeint
from dyn_sensitivity.wanted_gradients import wanted_gradients

__all__ = ["ProblemSurvey", "survey"]

WEIGHED_STEPS = 8
EDGE_OF_STABILITY = 2.5  # |lambda dt| at which explicit methods lose theirs: 3.3 for dopri5, about as much for others


@dataclass(frozen=True)
class ProblemSurvey:
    """Figures of a problem, measured by a solve without gradient, one back to its start, and a few steps with gradient.

    Attributes:
        solver: Name of the method's class.
        n_state: Elements of the state, of all samples.
        n_inputs: Elements of all that has a gradient.
        n_steps: Accepted steps; of the sample that takes most.
        state_bytes: Memory of one state.
        step_bytes: What a step keeps for `"autograd"`.
        dense_bytes: What a step keeps of a dense solution.
        stiffness: Largest magnitude of an eigenvalue of the field's Jacobian times the step size, the median over the
            steps, of the sample where it is greatest; None of a method that is implicit or has no estimate.
        failed_as_stiff: Whether the solve failed because of stiffness with the method that was asked for; all figures are
            then those of `"auto"`.
        drift: By how many tolerances a component of the state misses where it started from when it is solved back; infinite
            where it cannot be, NaN where there are events, across which nothing is solved back.
        opening: Output times as far as the end of the first step, and that, `[n]` or `[n, batch]`.
    """

    solver: str
    n_state: int
    n_inputs: int
    n_steps: int
    state_bytes: int
    step_bytes: float
    dense_bytes: int
    stiffness: float | None
    failed_as_stiff: bool
    drift: float
    opening: Tensor = field(repr=False, compare=False)

    @property
    def autograd_bytes(self) -> float:
        """What all steps keep for `"autograd"`."""
        return self.n_steps * self.step_bytes

    @property
    def is_stiff(self) -> bool:
        """Whether stability, and not the error, decides about the steps of an explicit method."""
        return self.failed_as_stiff or (self.stiffness or 0.0) >= EDGE_OF_STABILITY


def survey(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    args: tuple[Any, ...] = (),
    params: Sequence[Tensor] = (),
    **options: Any,
) -> ProblemSurvey:
    """Surveys a problem.

    Args:
        f: Vector field, as in `dyn_sensitivity.odeint`.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        params: Tensors that `f` captures and that want gradients.
        **options: What else `odeint` takes.

    Raises:
        SolverError: If the solve does not reach its end, but for a suspicion of stiffness.
        ValueError: If nothing requires a gradient, or the span has no length.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.problem_survey import survey
        >>> rate = torch.tensor(1.0, requires_grad=True)
        >>> found = survey(lambda t, x, a: -a * x, torch.ones(5), [0.0, 1.0], args=(rate,))
        >>> found.n_state, found.n_inputs, found.is_stiff
        (5, 1, False)
    """
    inputs = wanted_gradients(f, x0, t_span, args=args, params=params, **options)

    def solve(x0: Any, t: Any, **changed: Any) -> Solution:
        return odeint(f, x0, t, **{**options, "sensitivity": "autograd", "args": args, "params": params, **changed})

    try:
        with torch.no_grad():
            trial = solve(x0, t_span, save=Save(("t_span", "steps"), internals=True), throw=True)
    except StiffnessError:
        found = survey(f, x0, t_span, args=args, params=params, **{**options, "solver": "auto"})
        return replace(found, failed_as_stiff=True)
    method = stepper(options.get("solver", "tsit5"))
    ends = cast(Steps, trial.steps).t[1:]  # of the steps
    if not len(ends):
        raise ValueError(f"t_span: got {t_span!r:.60}, a span of no length, expected one that takes steps")
    states = tree_leaves(x0)
    return ProblemSurvey(
        solver=type(method).__name__,
        n_state=sum(leaf.numel() for leaf in states),
        n_inputs=sum(tensor.numel() for tensor in inputs),
        n_steps=len(ends),
        state_bytes=sum(leaf.nbytes for leaf in states),
        step_bytes=_kept_by_a_step(solve, x0, trial.t, ends),
        dense_bytes=(method.dense_degree + 1) * sum(leaf.nbytes for leaf in states),
        stiffness=None if method.implicit else _reach(trial),
        failed_as_stiff=False,
        drift=nan if trial.events else _drift(solve, x0, trial, options),
        opening=_until(trial.t, ends[0]),
    )


def _kept_by_a_step(solve: Callable[..., Solution], x0: Any, t: Tensor, ends: Tensor) -> float:
    """Bytes that one more step keeps alive."""
    last = min(len(ends), WEIGHED_STEPS)
    solve(x0, _until(t, ends[0]))  # what is made once and kept for later solves is no step's
    (some, first), (all_, second) = (_weighed(solve, x0, _until(t, ends[n - 1])) for n in (max(last // 2, 1), last))
    return (second - first) / (all_ - some) if all_ > some else second / all_


def _weighed(solve: Callable[..., Solution], x0: Any, t: Tensor) -> tuple[int, int]:
    """The steps of a solve with gradient, and the bytes that are alive after it."""
    with torch.enable_grad(), LiveBytes() as memory:
        solution = solve(x0, t)
        kept = memory.live
    return int(solution.stats.n_accepted.max()), kept


def _until(t: Tensor, end: Tensor) -> Tensor:
    """Output times `[T, *lead]` as far as an end `[*lead]`, and that."""
    t = t if t.dim() > end.dim() else t.unsqueeze(-1).expand(-1, len(end))
    direction = torch.sign(t[-1] - t[0])
    ahead, last = direction * t, direction * end
    if end.dim():  # samples may repeat their ends
        return direction * torch.cat([torch.minimum(ahead, last), last.unsqueeze(0)])
    return torch.cat([t[ahead < last], end.unsqueeze(0)])


def _reach(trial: Solution) -> float | None:
    """Eigenvalue times step size, the median over the steps of each problem, the greatest of all."""
    internals = trial.internals
    if internals is None or internals.stiffness is None:
        return None
    reach = internals.stiffness.double() * internals.dt.abs()
    return torch.where(internals.dt != 0, reach, torch.nan).nanmedian(0).values.max().item()


def _drift(solve: Callable[..., Solution], x0: Any, trial: Solution, options: dict[str, Any]) -> float:
    """By how many tolerances the state misses its start when it is solved back from its end."""
    times = trial.t.flip(0) if trial.t.dim() == 1 else trial.t[[-1, 0]]
    limit = 4 * int(trial.stats.n_steps.max()) + 100
    with torch.no_grad():
        back = solve(tree_map(lambda leaf: leaf[-1], trial.x), times, max_steps=limit, throw=False)
        rtol, atol = options.get("rtol", 1e-3), options.get("atol", 1e-6)
        misses = [
            ((found[-1] - start).abs() / (atol + rtol * start.abs())).max()
            for found, start in zip(tree_leaves(back.x), tree_leaves(x0), strict=True)
            if start.numel()
        ]
    return torch.stack(misses).nan_to_num(nan=inf).max().item() if misses else 0.0
