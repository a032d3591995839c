"""A solve as a chain of steps that can be taken again, one by one: what gradients are of.

A loop that selects computes rejected attempts and problems that have ended along with the rest. It runs without
gradient and writes the accepted steps down; repeating these, and nothing else, gives the solution with its gradient. Who
repeats them may keep every step's graph, as `replay` does, or take single ones again where a gradient needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils._pytree import tree_map_only

from dyn_numerics.ode.attempt import Problem, State, across, attempt, commit, initial_state
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.observer import AttemptedStep, Observer
from dyn_numerics.ode.scalar import Scalar, where
from dyn_numerics.ode.step_record import StepRecord
from dyn_numerics.ode.times import state_time
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane

__all__ = ["AcceptedSteps", "Attempts", "Chain", "Link", "replay"]


class Link(NamedTuple):
    """What one accepted step hands to the next.

    Attributes:
        x: State, `[*lead, N]`.
        carry: The stepper's; None before the first step, which makes it.
        shift: Zero, with the gradient with which the start of the step moves; None if it moves with the clock.
        last: Ends, state and carry of the last step of every problem, which one that has no more repeats; None as long as all
            have some.
    """

    x: Tensor
    carry: Any = None
    shift: Scalar | None = None
    last: Any = None


class Chain(Protocol):
    """Pure steps from link to link."""

    @property
    def problem(self) -> Problem:
        """The problem."""

    @property
    def n_evals(self) -> int:
        """Calls of `f` so far."""

    def __len__(self) -> int: ...

    def on(self, problem: Problem) -> Chain:
        """The same steps of a problem that is posed again, such as with other tensors in the places of its arguments."""

    def first(self, x: Tensor, carry: Any = None) -> Any:
        """The link before the first step.

        Args:
            x: State at the start, `[*lead, N]`.
            carry: The stepper's there, if it is known.
        """

    def advance(self, i: int, link: Any) -> tuple[Any, AttemptedStep]:
        """Takes step number `i` from the link before it: returns the link behind it, and what observers see of it."""

    def has_event(self, i: int) -> bool:
        """Whether it is known that something happens in step number `i`."""

    def undo(self, i: int, link: Any, kept: Any) -> Any:
        """The link before step number `i`, by the exact inverse of a reversible method, from the link behind it.

        Args:
            i: Number of the step, not the first.
            link: The link behind it.
            kept: What `to_undo` returned.

        Raises:
            TypeError: If the method is not reversible.
        """

    def to_undo(self, link: Any, attempted: AttemptedStep) -> Any:
        """What `undo` has to know of a step beside the link behind it: numbers, or the whole link where there is no inverse.

        Args:
            link: The link before the step.
            attempted: What observers see of it.
        """


class AcceptedSteps:
    """The accepted steps of a solve that was written down.

    A problem that is not stepped repeats the step before, which was finite, and one that never moved takes the numbers of
    another; the results are dropped. See `dyn_numerics.substitutes`.

    Args:
        problem: The problem, its clock with the differentiable times.
        record: Its accepted steps.

    Attributes:
        problem: The problem.
        n_evals: Calls of `f` so far.
    """

    def __init__(self, problem: Problem, record: StepRecord) -> None:
        self.problem, self.record = problem, record
        field, self._stepper, self._places = problem.f, problem.stepper, None
        if record.n_whole == 0 and len(record) and record.taken.dim() > 1:
            self._places = substitutes(record.taken[0])
            field = field.take(self._places)
            self._stepper = self._stepper.on(problem.context.take(self._places))
        self._field, self._f = field, Counter(field)

    def __len__(self) -> int:
        return len(self.record)

    def on(self, problem: Problem) -> AcceptedSteps:
        return AcceptedSteps(problem, self.record)

    @property
    def n_evals(self) -> int:
        return self._f.calls

    def has_event(self, i: int) -> bool:
        return self.record.events(i) is not None

    def first(self, x: Tensor, carry: Any = None) -> Link:
        return Link(self.problem.clock.beyond_start(x), carry, self.problem.shift)

    def advance(self, i: int, link: Link) -> tuple[Link, AttemptedStep]:
        problem, record, f, stepper = self.problem, self.record, self._f, self._stepper
        clock, events = problem.clock, problem.events
        x, carry, shift, last = link
        taken, reached = record.taken[i], record.reached[i]
        start = clock.start_of_step(record.t0[i], reached, shift)
        end = clock.end_of_step(record.t1[i], reached, shift)
        inputs = start, end, x, carry
        if i >= record.n_whole:
            inputs = inputs if last is None else where(taken, inputs, tree_map_only(Tensor, Tensor.detach, last))
            inputs = substituted(self._places, inputs)
        t0, t1, at, known = inputs
        if i == 0 and carry is None:
            first = clock.sided(f, t0, t1, at)
            slope = first(state_time(t0, at), at) if problem.completes else None
            known = stepper.init(first, state_time(t0, at), at, slope)
            carry = known
        if i + 1 >= record.n_whole and i + 1 < len(record):
            last = t0, t1, at, known
        sided = clock.sided(f, t0, t1, at)
        step = stepper.step(sided, t0, t1, at, known)
        if problem.completes:
            step = stepper.complete(sided, t1, step)
        before, ends = (record.t0[i], record.t1[i], reached, i, at), (start, end)
        attempted = AttemptedStep(problem, *before, step, step.x, taken, *ends, (t0, t1), field=self._field)
        after, carried = step.x, step.carry
        found = record.events(i)
        if events is not None and found is not None:
            piece = Piece(t0, t1, step.x, lambda made=attempted: made.interpolant)  # type: ignore[misc]
            met = events.carry_out(stepper, f, piece, step, found)
            after, carried = met.x, met.carry
            attempted = replace(
                attempted,
                t1=found.end,
                end=where(taken, met.end, end),
                stepped=(t0, met.end),
                step=met.step,
                found=found,
                occurrences=met.occurrences,
                _interpolant=met.interpolant,
            )
        if clock.jumps:
            beyond = across(problem, (attempted.t1, attempted.end), after, carried, taken)
            after, carried = beyond.x, beyond.carry
            f.calls += beyond.n_evals
        attempted.after = after
        if shift is not None:
            shift = where(taken, attempted.end - attempted.t1, shift)
        return Link(where(taken, after, x), where(taken, carried, carry), shift, last), attempted

    def to_undo(self, link: Link, attempted: AttemptedStep) -> Any:
        return link if _has_no_inverse(attempted) else link.shift

    def undo(self, i: int, link: Link, kept: Any) -> Link:
        if isinstance(kept, Link):
            return kept
        record, clock = self.record, self.problem.clock
        taken, at = record.taken[i], i
        t0, t1 = record.t0[i], record.t1[i]
        if i >= record.n_whole:  # a problem that has no more steps repeats its last one
            at = (record.taken.sum(0) - 1).clamp(min=0, max=i).unsqueeze(0)
            t0, t1 = record.t0.gather(0, at)[0], record.t1.gather(0, at)[0]
        places = self._places
        t0, t1, x, carry = substituted(places, (t0, t1, link.x, link.carry))
        x, carry = self._stepper.inverse_step(clock.sided(self._f, t0, t1, x), t0, t1, x, carry)
        last = (t0, t1, x, carry) if i >= record.n_whole else None
        return Link(where(taken, x, link.x), where(taken, carry, link.carry), kept, last)


class Attempts:
    """All attempts of a solve whose step sizes have gradients, rejected ones included.

    Args:
        problem: The problem.
        n: Number of attempts.

    Attributes:
        problem: The problem.
        n_evals: Calls of `f` so far.
    """

    def __init__(self, problem: Problem, n: int) -> None:
        self.problem, self.n_evals, self._n = problem, 0, n

    def __len__(self) -> int:
        return self._n

    def on(self, problem: Problem) -> Attempts:
        return Attempts(problem, self._n)

    def has_event(self, i: int) -> bool:
        return False

    def first(self, x: Tensor, carry: Any = None) -> Link:
        return Link(x)

    def advance(self, i: int, link: Link | State) -> tuple[State, AttemptedStep]:
        state: State
        if isinstance(link, Link):
            state, n_evals = initial_state(self.problem, link.x)
            self.n_evals += n_evals
        else:
            state = link
        tried = attempt(self.problem, state)
        self.n_evals += tried.n_evals
        return commit(self.problem, state, tried), AttemptedStep.of(self.problem, state, tried)

    def to_undo(self, link: State, attempted: AttemptedStep) -> Any:
        kept = link if _has_no_inverse(attempted) else link._replace(x=None, carry=None)  # type: ignore[arg-type]
        return kept, attempted.t1, attempted.moved

    def undo(self, i: int, link: State, kept: Any) -> State:
        before, t1, moved = kept
        if before.x is not None:
            state: State = before
            return state
        f, t0, x, carry = Counter(self.problem.f), before.t, link.x, link.carry
        if moved is not False:
            sided = self.problem.clock.sided(f, t0, t1, x)
            undone = self.problem.stepper.inverse_step(sided, t0, t1, x, carry)
            x, carry = where(moved, undone, (x, carry))
        self.n_evals += f.calls
        state = before._replace(x=x, carry=carry)
        return state


def _has_no_inverse(attempted: AttemptedStep) -> bool:
    """Whether more happened in a step than the method did: an event, or a jump where it ends."""
    clock = attempted.problem.clock
    return attempted.found is not None or (clock.jumps and any_lane(clock.stops.hold(attempted.t1)))  # type: ignore[union-attr]


def replay(chain: Chain, x0: Tensor, observers: Sequence[Observer], carry: Any = None) -> tuple[Tensor, Any, int]:
    """Takes all steps again, differentiably as they are.

    Args:
        chain: The steps.
        x0: State at the start, `[*lead, N]`.
        observers: Told of every step.
        carry: The stepper's at the start; made there if not given.

    Returns:
        The last states, what the stepper carries there, and the calls of `f`.
    """
    link, n_evals = chain.first(x0, carry), 0
    for i in range(len(chain)):
        link, attempted = chain.advance(i, link)
        for observer in observers:
            observer.observe(attempted)
        n_evals += attempted.n_evals
    return link.x, link.carry, n_evals + chain.n_evals
