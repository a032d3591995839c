"""The one loop behind every handler: steps of a method until each sample has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.batch import put_rows, select_rows, take_rows
from dyn_numerics.loop import count_from_zero, repeat
from dyn_numerics.norms import rms_norm_at_any_scale
from dyn_numerics.root.line_search import LineSearch, Searched
from dyn_numerics.root.residual import Residual
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper
from dyn_numerics.root.termination import RUNNING, Progress, Termination
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane

__all__ = ["Iteration", "IterationState", "follow", "initial_state", "iterate"]

COUPLED_ABOVE = 10.0  # times its tolerance: a residual that rounding does not explain


@dataclass(frozen=True)
class Iteration:
    """What stays the same over an iteration.

    Attributes:
        f: Residual of flat iterates.
        stepper: Method.
        line_search: What shortens its steps, or None.
        termination: When to end.
        rtol: Relative tolerance of the residual: a number, or `[batch]`.
        atol: Absolute tolerance of the residual: a number, or `[batch]`.
        max_steps: Greatest number of steps.
        differentiable: Whether gradients flow through the steps.
    """

    f: Residual
    stepper: RootStepper
    line_search: LineSearch | None
    termination: Termination
    rtol: float | Tensor
    atol: float | Tensor
    max_steps: int
    differentiable: bool

    def take(self, samples: Tensor) -> Iteration:
        """The iteration of some of the samples, whose indices are `[m]`."""
        rtol, atol = (value[samples] if isinstance(value, Tensor) else value for value in (self.rtol, self.atol))
        return replace(self, f=self.f.take(samples), rtol=rtol, atol=atol)

    def context(self, state: IterationState) -> Context:
        """What a method is told of the iterate."""
        # The norm that was judged has no gradient.
        norm = rms_norm_at_any_scale(state.value) if self.differentiable else state.norm
        return Context(state.value, norm, state.n_rounds, self.f.args, self.f.layout, state.running)

    def tolerance(self, scale: Tensor) -> Tensor:
        """Norm of a residual that counts as zero, `[batch]`."""
        return self.atol + self.rtol * scale


class IterationState(NamedTuple):
    """What a step changes. Samples that have ended stand still.

    Attributes:
        z: Iterate, `[batch, N]`.
        value: Residual there, `[batch, N]`.
        norm: Its norm, `[batch]`.
        carry: What the method remembers.
        first: Norm of the residual at the start, `[batch]`.
        best_z: Iterate with the smallest residual, the last of them, `[batch, N]`.
        best_norm: Norm of that residual, `[batch]`.
        idle: Steps since then, `[batch]`.
        n_steps: Steps, `[batch]`.
        code: How samples ended, `[batch]`, or `RUNNING`.
        n_rounds: Steps of the samples that still run, an integer or `[]`.
        n_evals: Calls of the function, an integer or `[]`.
    """

    z: Tensor
    value: Tensor
    norm: Tensor
    carry: Any
    first: Tensor
    best_z: Tensor
    best_norm: Tensor
    idle: Tensor
    n_steps: Tensor
    code: Tensor
    n_rounds: int | Tensor
    n_evals: int | Tensor

    @property
    def running(self) -> Tensor:
        """Which samples have not ended, `[batch]`."""
        return self.code == RUNNING


class Counter:
    """Counts the calls of a residual.

    Attributes:
        calls: Number of calls so far.
    """

    def __init__(self, f: Residual) -> None:
        self._f = f
        self.calls = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        return self._f(z)


def initial_state(problem: Iteration, z: Tensor, value: Tensor) -> IterationState:
    """The state at the start, where what is solved has ended; without the `carry`.

    Args:
        problem: What stays the same.
        z: Start, `[batch, N]`.
        value: Residual there, `[batch, N]`.
    """
    norm = rms_norm_at_any_scale(value.detach())
    code = problem.termination.at_start(norm, problem.tolerance(problem.f.scale(z.detach(), value.detach(), norm)))
    none = torch.zeros_like(code)
    n_rounds, n_evals = count_from_zero(z), 1 + count_from_zero(z)
    # The best iterate is a copy, since it is returned if it is never bettered, and the start is the user's.
    return IterationState(z, value, norm, None, norm, z.clone(), norm, none, none, code, n_rounds, n_evals)


def iterate(problem: Iteration, state: IterationState, compact: bool = False) -> IterationState:
    """Repeats steps until every sample has ended.

    Args:
        problem: What stays the same.
        state: Where to start.
        compact: Whether samples that have ended leave the batch, whenever they are half of it.
    """
    if problem.differentiable and any_lane(state.running) and any_lane(~state.running):
        # Who has ended at the start has no step to repeat, and takes those of another. The residual is computed anew, since
        # that of the start need not be finite, and nobody may differentiate it.
        places = substitutes(state.running)
        z, norm = substituted(places, (state.z, state.norm))
        problem = problem.take(places)
        state = state._replace(z=z, value=problem.f(z), norm=norm, n_evals=state.n_evals + 1)
    state = state._replace(carry=problem.stepper.init(state.z, problem.context(state)))
    if compact:
        return _iterate_compactly(problem, state)
    (state,) = repeat(lambda now: now.running, lambda now: (_advance(problem, now),), (state,))
    return state


def _iterate_compactly(problem: Iteration, state: IterationState) -> IterationState:
    whole, samples = state, torch.arange(len(state.z), device=state.z.device)
    n_running = int(state.running.sum())
    while n_running:
        if n_running <= len(state.z) // 2:
            whole = put_rows(whole, samples, state)
            left = state.running.nonzero().squeeze(1)
            samples, problem = samples[left], problem.take(left)
            state = take_rows(state, left)
        state = _advance(problem, state)
        n_running = int(state.running.sum())
    return put_rows(whole, samples, state)


def _advance(problem: Iteration, state: IterationState) -> IterationState:
    """One step of every sample that still runs."""
    f = problem.f if torch.compiler.is_compiling() else Counter(problem.f)
    context, running = problem.context(state), state.running
    proposal = problem.stepper.step(f, state.z, state.carry, context)
    goes = running if proposal.status is None else running & (proposal.status == 0)
    z, value, n_evals = follow(f, problem.line_search, state.z, goes, context, proposal)
    norm = rms_norm_at_any_scale(value)
    scale = problem.f.scale(z.detach(), value, state.first)
    moved = rms_norm_at_any_scale((z - state.z).detach())
    progress = Progress(
        norm=norm,
        best=state.best_norm,
        first=state.first,
        scale=scale,
        tolerance=problem.tolerance(scale),
        moved=moved,
        step=moved,
        size=rms_norm_at_any_scale(z.detach()),
        idle=torch.where(norm < state.best_norm, 0, state.idle + 1),
        eps=problem.f.layout.eps,
        closes_in=problem.stepper.closes_in,
    )
    if problem.line_search is not None and problem.termination.judges_steps:
        # A step of which no length was taken is as long as it was meant to be, or samples would converge by standing still.
        meant = rms_norm_at_any_scale((proposal.z - state.z).detach())
        progress = progress._replace(step=torch.where(progress.moved > 0, progress.moved, meant))
    code = problem.termination.after_step(progress)
    n_steps = torch.where(running, state.n_steps + 1, state.n_steps)
    code = torch.where((code == RUNNING) & (n_steps >= problem.max_steps), RootStatus.MAX_STEPS.code, code)
    if proposal.status is not None:
        # Where the residual is zero nobody has to go on.
        code = torch.where((proposal.status != 0) & (norm > 0), proposal.status, code)
    code = torch.where(running, code, state.code)
    if not problem.differentiable:
        # Who has converged is evaluated along with the others where it stands, which shows whether it depends on them.
        unstable = (state.code == RootStatus.CONVERGED.code) & ~(norm <= COUPLED_ABOVE * progress.tolerance)
        code = torch.where(unstable, RootStatus.COUPLED.code, code)
    better = running & (norm <= state.best_norm)
    best_z = torch.where(better.unsqueeze(-1), z, state.best_z)
    going = code == RUNNING
    carry = proposal.carry
    if problem.differentiable:
        # Values are found without gradient and computed with it for those alone who go on: nobody differentiates where a
        # sample ends, or is not finite. Who has ended repeats its last step, which was differentiated already.
        z, norm, carry = select_rows(going, (z, norm, carry), (state.z, state.norm, state.carry))
        value = f(z)
    return IterationState(
        z=z,
        value=value,
        norm=norm,
        carry=carry,
        first=state.first,
        best_z=best_z,
        best_norm=torch.where(better, progress.norm, state.best_norm),
        idle=progress.idle,
        n_steps=n_steps,
        code=code,
        n_rounds=state.n_rounds + 1,
        n_evals=state.n_evals + (f.calls if isinstance(f, Counter) else n_evals),
    )


def follow(
    f: FlatFunction, line_search: LineSearch | None, z: Tensor, goes: Tensor, context: Context, proposal: Proposal
) -> Searched:
    """Goes where a method wants to go, or as far as a line search lets it; the residual there has no gradient.

    Args:
        f: Residual of flat iterates.
        line_search: What shortens the step, or None.
        z: Iterate, `[batch, N]`.
        goes: Which samples go on, `[batch]`; the others stay.
        context: What is known of the iterate.
        proposal: What the method has proposed.
    """
    if proposal.value is not None:
        z, value = select_rows(goes, (proposal.z, proposal.value.detach()), (z, context.value.detach()))
        return Searched(z, value, proposal.n_evals)
    ahead = torch.where(goes.unsqueeze(-1), proposal.z, z)
    if line_search is None:
        with torch.no_grad():
            return Searched(ahead, f(ahead), proposal.n_evals + 1)
    found = line_search.search(f, z, ahead - z, context)
    return found._replace(n_evals=proposal.n_evals + found.n_evals)
