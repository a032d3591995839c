"""How a solve goes on where another has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics.ode.attempt import Problem, State, initial_state, look_ahead
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.posed import Posed, pose_again
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.scalar import Flag, both, negate, where
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.stepper import Work
from dyn_numerics.ode.times import state_time
from dyn_numerics.status import Status
from dyn_numerics.transforms import any_lane, in_forward_mode

__all__ = ["Ended"]


@dataclass(frozen=True)
class Ended:
    """A solve that has ended, as far as one that goes on from there has to know it.

    Attributes:
        posed: The problem as it was posed, but for the state at its start.
        state: The last state, as differentiable as the outputs.
        begun: Where a step was ever taken: a truth value, or `[*lead]`. Elsewhere no step size is known.
        failed: Where it failed, or stays ended all the same, `[*lead]`.
        stopped: Where an event ended it, or its steps had run out.
        status_code: As in `Solution`, and so are the two that follow.
        t_reached: The last time at which the state is known.
        dt_last: Magnitude of the last attempted step.
        modes: Whether gradients were recorded, and whether those of forward mode were.
    """

    posed: Posed
    state: State
    begun: Flag
    failed: Tensor
    stopped: Tensor
    status_code: Tensor
    t_reached: Tensor
    dt_last: Tensor
    modes: tuple[bool, bool]

    @classmethod
    def of(cls, posed: Posed, state: State, solution: Solution, before: Ended | None) -> Ended:
        """A solve, by its last state and its solution.

        Args:
            posed: The problem as it was posed.
            state: The last state, as differentiable as the outputs.
            solution: The solution.
            before: What it went on from itself, if anything.
        """
        begun = state.n_accepted > 0
        code = solution.status_code
        stopped = (code == Status.EVENT.code) | (code == Status.MAX_STEPS.code)
        return cls(
            posed=replace(posed, start=state.x),
            state=state,
            begun=begun if before is None else begun | before.begun,
            failed=(solution.status_code != Status.SUCCESS.code) & ~stopped,
            stopped=stopped,
            status_code=solution.status_code,
            t_reached=solution.t_reached,
            dt_last=solution.dt_last,
            modes=_modes(),
        )

    def pose(self, t_span: Tensor | Sequence[float], save: Save | None, max_steps: float | None) -> tuple[Posed, Ended]:
        """Poses the problem again with times that go on from the end.

        What an event has ended, or what had used up its steps, goes on where they start at the time that was reached, and stays
        ended where they start at the last one.

        Args:
            t_span: Output times.
            save: What to keep, if not as before.
            max_steps: Greatest number of attempts, if not as before.

        Returns:
            The problem, and this, with what stays ended among what has failed.

        Raises:
            TypeError: As `dyn_numerics.odeint`, of `t_span`.
            ValueError: As `dyn_numerics.odeint`, of `t_span`; and if these start elsewhere or go the other way.
        """
        old = self.posed
        # Steps that run out, or end with an event, may have gone beyond a jump; a span ends before it.
        within = self.stopped & (self.t_reached != old.times[-1].detach())
        posed = pose_again(
            old,
            self.state.x,
            t_span,
            old.save if save is None else save,
            old.problem.max_steps if max_steps is None else max_steps,
            bool(within) if old.problem.branches else within,
        )
        first, last = posed.times[0].detach(), old.times[-1].detach()
        end = torch.where(self.stopped, self.t_reached, last)

        def starts_at(t: Tensor) -> Tensor:
            return (first == t) | (
                first == t.to(old.t.dtype)
            )  # as the user got it back, in a dtype that may be shorter

        failed = self.failed | (self.stopped & starts_at(last) & ~starts_at(end))
        elsewhere = ~starts_at(end) & ~failed
        if any_lane(elsewhere):
            raise ValueError(
                f"t_span: got {_first(first, elsewhere)} as the first time, expected "
                f"{_first(end, elsewhere)}, where the solution ended; try t_span = [solution.t_reached, ...]"
            )
        ways = [torch.as_tensor(p.problem.clock.direction, device=first.device) for p in (old, posed)]
        moves = (posed.times[-1] != first) & (old.times[-1] != old.times[0])
        if any_lane((ways[0] != ways[1]) & moves & ~failed):
            raise ValueError(
                "t_span: got times in the other direction, expected them to go on as the solution did; "
                "try odeint from its last state"
            )
        return posed, replace(self, failed=failed)

    def begin(self, problem: Problem, x: Tensor, detached: bool = False) -> tuple[State, int]:
        """The state before the first attempt, and the calls of `f` that it took.

        Args:
            problem: The problem as it was posed again.
            x: State at the start, `[*lead, N]`.
            detached: Whether the solve runs without gradient.
        """
        last, clock = self.state, problem.clock
        carry, dt, memory = self.carry(problem), last.dt, last.memory
        if detached:
            carry = _detached(carry)
        if not problem.learns:
            dt, memory = _detached((dt, memory))
        on_host = isinstance(clock.start, float)
        running = negate(self.failed_in(problem))
        zero, n_evals, events = last.n_steps * 0, 0, last.events
        if events is not None:
            events = events._replace(code=zero + Status.SUCCESS.code)
        new, x0 = both(running, negate(self.begun)), x
        x = clock.beyond_start(x0)
        if any_lane(new):
            fresh, n_evals = initial_state(problem, x0)
            dt, memory = where(new, (fresh.dt, fresh.memory), (dt, memory))
            carry = fresh.carry
        elif carry is None and running is not False:
            f, t0 = Counter(problem.f), state_time(clock.first, x)
            sided = clock.sided(f, clock.first, clock.end, x)
            wanted = problem.controller.adaptive or (problem.completes and not problem.branches)
            carry = problem.stepper.init(sided, t0, x, sided(t0, x) if wanted else None)
            n_evals = f.calls
        t = where(running, clock.start, self.t_reached.item() if on_host else self.t_reached)
        state = State(
            t=t,
            t1=t,
            dt=dt,
            taken=last.taken * 0,
            reached=zero,
            x=x,
            carry=carry,
            memory=memory,
            stalled=zero,
            n_steps=zero,
            n_accepted=zero,
            n_active_evals=zero + n_evals,
            failed=None if last.failed is None else zero,
            work=None if last.work is None else Work(zero, zero, zero),
            running=running,
            shift=problem.shift,
            events=events,
        )
        return look_ahead(problem, state), n_evals

    def carry(self, problem: Problem) -> Any:
        """What the stepper carries over, or None where it has to be made anew, so that no gradient is missing.

        Args:
            problem: The problem as it was posed again.
        """
        clock = self.posed.problem.clock
        # Before a first step there is none; that of a step that an event cuts is behind it; something may jump at the end.
        jumps = clock.jumps and any_lane(clock.stops.hold(clock.end))  # type: ignore[union-attr]
        whole = not (any_lane(negate(self.begun)) or any_lane(self.stopped) or jumps)
        recorded = all(then or not now for then, now in zip(self.modes, _modes(), strict=True))
        # A slope at the end moves with that time, and at the start with the other.
        moves = clock.differentiable is not None or problem.clock.differentiable is not None
        known = whole and recorded and not moves
        return self.state.carry if known else None

    def failed_in(self, problem: Problem) -> Flag:
        """Where it failed, as the driver of the problem computes with it."""
        return bool(self.failed) if problem.branches else self.failed

    def kept_failed(self, solution: Solution) -> Solution:
        """The solution, in which what had failed before is as it was."""

        def kept(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(self.failed, old, new)

        return replace(
            solution,
            status_code=kept(self.status_code, solution.status_code),
            t_reached=kept(self.t_reached, solution.t_reached),
            dt_last=kept(self.dt_last, solution.dt_last),
        )


def _modes() -> tuple[bool, bool]:
    """Whether gradients are being recorded, and whether derivatives of forward mode are being computed."""
    return torch.is_grad_enabled(), in_forward_mode()


def _detached(values: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, values)


def _first(t: Tensor, wrong: Tensor) -> str:
    """The first of some times `[*lead]`, as a message shows it."""
    if not t.dim():
        return f"{t.item():.17g}"
    sample = int(wrong.to(torch.int8).argmax())
    return f"{t[sample].item():.17g} (of sample {sample})"
