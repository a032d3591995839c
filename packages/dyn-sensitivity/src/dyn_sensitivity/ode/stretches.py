"""A broken solution as smooth stretches, and what happens between them.

A stretch is differentiated by a backward solve of its own. What happens where one ends, the time of an event, a jump, is
a function of the state there, taken again where the graph can see it; the next stretch starts from what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import pad
from torch.utils._pytree import tree_leaves, tree_unflatten

from dyn_numerics.autocast import without_autocast
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.events.event_record import EventRecord
from dyn_numerics.ode.events.found import Found, Happened, Occurrence
from dyn_numerics.ode.interpolants.piece import Piece
from dyn_numerics.ode.posed import Posed
from dyn_numerics.ode.search import count_below
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.substitutes import substituted, substitutes
from dyn_sensitivity.ode.adjoint_function import AdjointFunction, Stretch
from dyn_sensitivity.ode.backward_solve import AdjointProblem
from dyn_sensitivity.ode.breaks import Break

__all__ = ["join"]


def join(
    problem: AdjointProblem,
    posed: Posed,
    x: Tensor,
    breaks: Sequence[Break],
    dense: DenseSolution | None,
    inputs: Sequence[Tensor],
) -> tuple[Tensor, tuple[EventRecord, ...]]:
    """Puts a solution together from its stretches, with the gradient of all; it takes a call of `f` for each break.

    Args:
        problem: The problem of the adjoint.
        posed: The problem, as differentiable as it is.
        x: States at its times, `[T, *lead, N]`, NaN at those that were not reached; without gradient.
        breaks: Where the solution breaks.
        dense: The solution as a function of time, where the state is recalled.
        inputs: Tensors in args and parameters that want gradients.

    Returns:
        States at the output times, `[T, *lead, N]`, and the events.

    Raises:
        ValueError: If a jump leads elsewhere than in the forward solve.
    """
    clock, times = posed.problem.clock, posed.times
    direction = torch.as_tensor(clock.direction, device=times.device)
    ahead = times.detach() * direction
    standing = ahead[0] == ahead[-1]
    found = torch.cat([posed.start.unsqueeze(0), torch.full_like(x[1:], torch.nan)])
    events: list[list[Occurrence]] = [[] for _ in range(len(posed.problem.events or ()))]
    rounding = _rounding(posed.layout)
    with without_autocast(x.device.type):
        start, state = times[0], clock.beyond_start(posed.start)
        goes_on = torch.ones_like(standing)  # a problem with fewer breaks than others stands still where its last was
        for broken in [*breaks, None]:
            end = torch.where(goes_on, times[-1], start).detach()
            at_end = torch.where(goes_on.unsqueeze(-1), x[-1], state).detach()
            breaks_here = torch.zeros_like(goes_on) if broken is None else broken.present
            if broken is not None:
                end = torch.where(breaks_here, broken.t, end)
                at_end = torch.where(breaks_here.unsqueeze(-1), broken.x, at_end)
            after_start = (ahead > start.detach() * direction) | standing
            at_break = breaks_here & after_start & (ahead == end * direction)
            within = goes_on & after_start & (ahead <= end * direction) & ~at_break

            t = _rows(start, times, end, within, after_start)
            states = _rows(state.detach(), x, at_end, within, after_start)
            # Where no problem moves there is nothing to solve; in a span of no length every output has its time.
            moves = (t.detach().diff(dim=0) != 0) | (standing & goes_on)
            moves = moves.reshape(len(moves), standing.numel()).any(1)
            index = torch.cat([moves.new_zeros(1), moves]).cumsum(0)
            kept = torch.cat([moves.new_ones(1), moves]).nonzero().flatten()
            solved = state.unsqueeze(0)
            if len(kept) > 1:
                solved = _along(problem, posed, t[kept], state, states[kept], dense, inputs)
            found = torch.where(within.unsqueeze(-1), solved[index[:-1]], found)
            if broken is None:
                break

            happened, slope = _across(posed, broken, start, state, solved[-1])
            _refuse_another(broken, happened.after.detach(), rounding)
            # An output at a break moves with its own time, unlike the break.
            moving = slope.detach() * (times - times.detach()).to(real_dtype(x.dtype)).unsqueeze(-1)
            found = torch.where(at_break.unsqueeze(-1), solved[-1] + moving, found)
            goes_on = breaks_here
            start = torch.where(goes_on, torch.as_tensor(happened.end), start.detach())
            state = torch.where(goes_on.unsqueeze(-1), happened.after, state.detach())
            for column, occurrence in zip(events, happened.occurrences, strict=False):
                if occurrence is not None:
                    column.append(occurrence._replace(t=torch.as_tensor(occurrence.t)))
    records = (EventRecord.of(column, times, posed.start, posed.layout) for column in events)
    return found, tuple(records)


def _rows(start: Tensor, outputs: Tensor, end: Tensor, within: Tensor, after_start: Tensor) -> Tensor:
    """What there is at the start of a stretch, at the outputs after the first, and at its end; `[T + 1, ...]`.

    Args:
        start: What there is at the start.
        outputs: What there is at the outputs, `[T, ...]`; for those outside of the stretch its nearer end stands in.
        end: What there is at the end.
        within: Which outputs are within the stretch, `[T, *lead]`.
        after_start: Which are after its start.
    """
    if outputs.dim() > within.dim():
        within, after_start = within.unsqueeze(-1), after_start.unsqueeze(-1)
    rows = torch.where(within, outputs, torch.where(after_start, end, start))
    return torch.cat([start.unsqueeze(0), rows[1:], end.unsqueeze(0)])


def _along(
    problem: AdjointProblem,
    posed: Posed,
    t: Tensor,
    state: Tensor,
    x: Tensor,
    dense: DenseSolution | None,
    inputs: Sequence[Tensor],
) -> Tensor:
    """The states `[n, *lead, N]` at the times of a stretch.

    Args:
        problem: The problem of the adjoint.
        posed: The problem.
        t: The times, `[n, *lead]`.
        state: The state at the first, `[*lead, N]`.
        x: States at all, without gradient.
        dense: The solution as a function of time, where the state is recalled.
        inputs: Tensors in args and parameters.
    """
    layout = posed.layout
    stretch = Stretch(tuple(tree_leaves(layout.unflatten(x))), () if dense is None else _part(dense, t.detach()))
    leaves = AdjointFunction.apply(problem, stretch, t, *tree_leaves(layout.unflatten(state)), *inputs)  # type: ignore[no-untyped-call]
    return layout.flatten(tree_unflatten(list(leaves), problem.field.state_structure))


def _part(dense: DenseSolution, t: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the steps and the coefficients of a solution between the first and the last of some times `[n, *lead]`."""
    ends, coefficients = dense.t, dense.coefficients
    direction = torch.where(ends[-1] < ends[0], -1, 1)
    knots = (ends[1:] * direction).movedim(0, -1).contiguous()
    bounds = (t[[0, -1]] * direction).movedim(0, -1).contiguous()
    first = count_below(knots, bounds[..., :1], including=True).squeeze(-1).clamp(max=len(coefficients) - 1)
    last = count_below(knots, bounds[..., 1:], including=False).squeeze(-1).clamp(max=len(coefficients) - 1)
    last = torch.maximum(first, last)
    count = int((last - first).max()) + 1
    at = torch.minimum(first + torch.arange(count, device=t.device).reshape(-1, *[1] * first.dim()), last)
    lead = tuple(torch.arange(n, device=t.device) for n in first.shape)
    return torch.cat([ends[(at[:1], *lead)], ends[(at + 1, *lead)]]), coefficients[(at, *lead)]


def _across(posed: Posed, broken: Break, start: Tensor, state: Tensor, x: Tensor) -> tuple[Happened, Tensor]:
    """What happens at a break, with gradient, and the slope before; it takes one call of `f`.

    Args:
        posed: The problem.
        broken: The break.
        start: Start of the stretch before, `[*lead]`.
        state: State there, `[*lead, N]`.
        x: State at the break, `[*lead, N]`.
    """
    problem, clock = posed.problem, posed.problem.clock
    at_start = (broken.t0 == broken.t) & (broken.t == start.detach())  # an event there moves with it
    t0, x = torch.where(at_start, start, broken.t0), torch.where(at_start.unsqueeze(-1), state, x)
    places = substitutes(broken.present) if broken.present.dim() else None
    parts = (t0, broken.t, x, broken.interpolant, (~at_start).to(broken.t))
    t0, t, x, coefficients, theta = substituted(places, parts)
    f = problem.f if places is None else problem.f.take(places)
    slope = clock.sided(f, t0, t, x)(state_time(t, x), x)
    happened = Happened(t, x, coefficients, x, torch.zeros_like(broken.cut), ())
    if problem.events is not None and bool(torch.stack(broken.happened).any()):
        # The solution before moves with the state and its slope at the end, in the shape that it has.
        tilt = (slope - slope.detach()) * (t - t0).to(real_dtype(x.dtype)).unsqueeze(-1)
        moving = torch.stack([x - x.detach() - tilt, tilt], dim=-2).to(coefficients.dtype)
        coefficients = coefficients + pad(moving, (0, 0, 0, coefficients.shape[-2] - 2))
        count = len(broken.happened)
        whole = Found((t,) * count, (theta,) * count, broken.happened, broken.jumped, broken.cut, t, theta, t)
        happened = problem.events.happen(Piece(t0, t, x, lambda: coefficients), whole)
    if clock.stops is not None:
        after = clock.stops.beyond(happened.end, happened.after, broken.landed)
        happened = happened._replace(after=after)
    return happened, slope


def _rounding(layout: StateLayout) -> float:
    """The relative rounding of what a jump may compute in: leaves of the state, or autocast."""
    dtypes, device = list(layout.dtypes), layout.device.type
    if torch.is_autocast_enabled(device):
        dtypes.append(torch.get_autocast_dtype(device))
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _refuse_another(broken: Break, after: Tensor, rounding: float) -> None:
    """Refuses a jump that was not made again as it was: what follows would have the gradient of something else.

    Args:
        broken: The break.
        after: State after it, `[*lead, N]`.
        rounding: Of what it computes in.

    Raises:
        ValueError: If that is another than in the forward solve.
    """
    away, before, then = (vector_norm(x, dim=-1) for x in (after - broken.after, broken.x, broken.after))
    differs = broken.present & (away > sqrt(rounding) * (before + then))
    if bool(differs.any()):
        raise ValueError(
            f"jump: led to another state at t = {broken.t[differs][0].item():.6g} when it was made again for the gradient, "
            f"expected the same from the same state; draw random numbers before the solve and pass them as args=(...), or use "
            f"sensitivity='autograd'"
        )
