"""The handler of initial value problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor

from dyn_numerics.autocast import without_autocast
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode import compiled_loop, eager_loop
from dyn_numerics.ode.arguments import check_compact, refuse_compiled, step_limit
from dyn_numerics.ode.attempt import Problem, State, initial_state, status_code
from dyn_numerics.ode.callbacks import Callbacks, TellCallbacks
from dyn_numerics.ode.controllers.controller import Controller
from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.events.event_record import SaveEvents
from dyn_numerics.ode.flat_field import Counter, WatchedField
from dyn_numerics.ode.internals import SaveInternals
from dyn_numerics.ode.observer import Observer
from dyn_numerics.ode.posed import Posed, pose
from dyn_numerics.ode.repetition import AcceptedSteps, Attempts, Chain, replay
from dyn_numerics.ode.resumption import Ended
from dyn_numerics.ode.rows import BufferRows, ListRows, Rows
from dyn_numerics.ode.save import Form, Save
from dyn_numerics.ode.saver import Saved, SaveDense, SaveGrid, Saver, SaveSteps, SaveTimes, SaveValues
from dyn_numerics.ode.scalar import where
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.step_record import RecordSteps
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steps import Steps
from dyn_numerics.ode.times import is_differentiable, state_time
from dyn_numerics.progress import ProgressBar, ShowProgress, progress_bar
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane, in_forward_mode, under_transform

__all__ = ["Repeat", "odeint", "solve_compiled", "solve_compiled_to_end", "solve_observed", "solve_repeating"]

Repeat = Callable[[Chain, Tensor, Saver, Sequence[bool]], tuple[Tensor, Any, int]]
"""How a solve that ran without gradient is taken again: as `replay`, and told in which steps there is something to keep."""


def odeint(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    solver: str | Stepper = "tsit5",
    rtol: float | Tensor = 1e-3,
    atol: float | Tensor = 1e-6,
    args: Sequence[Any] = (),
    step_size: float | None = None,
    stepping: Literal["joint", "per_sample"] = "joint",
    controller: Controller | None = None,
    events: Event | Sequence[Event] = (),
    save: Literal["t_span", "steps", "dense"] | Save = "t_span",
    max_steps: int | None = None,
    compact: bool = False,
    progress: bool | ProgressBar | None = None,
    callbacks: Callbacks | None = None,
    throw: bool = True,
) -> Solution:
    """Solves `dx/dt = f(t, x, *args)` from `x(t_span[0]) = x0`.

    The whole state is one problem with one step size, or every sample of a batch is one of its own. Adaptive methods land
    on the end of `t_span`, never evaluate `f` outside it (but for `"kvaerno5"`, which has a stage beyond the end of a step),
    and interpolate the outputs in between, so that the number of evaluations does not depend on the number of outputs. Gradients flow through the accepted steps to `x0`, `args`,
    `t_span` and whatever `f` and a trainable solver depend on, as anywhere in PyTorch; step sizes are constants to them.

    Inside `torch.compile(fullgraph=True)` (torch 2.13 or newer) the whole solve becomes one program, without gradient:
    `dyn_sensitivity.odeint` has one. Times and tolerances given as tensors do not recompile when their values change,
    Python numbers do. Such a program cannot raise, and checks no values: look at `Solution.status`, or call
    `raise_if_failed()`, outside of it.
    Under `torch.func` (`vmap`, `jvp`, `vjp`, `jacrev`, `jacfwd`) a failed solve has NaN outputs as well.

    Args:
        f: Vector field. Called with `t`, `[]` in the real dtype and on the device of the state, and the state; returns
            the slope in structure, shapes, dtypes and device of the state, in state units per time unit, as a new tensor.
            It must not write into the state. It computes under the caller's autocast; the method itself does not. A method
            that treats two parts of the field differently takes a `SplitField`.
        x0: Initial state: a tensor of any shape or a pytree of tensors, real or complex, float64 to float16. `f` receives
            its leaves contiguous, whatever their memory format was.
        t_span: Output times `[T]`, strictly increasing or decreasing, a sequence of numbers or a floating tensor. The
            solve runs from the first to the last; a span of no length returns `x0`. With `stepping="per_sample"` also
            `[T, batch]`: every sample has times of its own, in its own direction, and repeating the end pads short ones.
        solver: A `Stepper`, or the name of a method: `"euler"`, `"midpoint"`, `"heun"`, `"ralston"`, `"rk4"` with fixed
            steps; `"bosh3"`, `"dopri5"`, `"tsit5"`, `"vern7"`, `"dopri8"` with adaptive ones; for stiff problems
            `"rosenbrock23"`, `"rodas5p"`, `"kvaerno3"`, `"kvaerno5"`, adaptive, `"implicit_euler"`, `"trapezoid"` with fixed
            steps, and `"kencarp4"`, adaptive, on a `SplitField`; `"auto"`, which finds out whether a problem is stiff and
            changes its method, adaptive; the symplectic `"verlet"` and `"yoshida4"` with fixed steps on a `SplitField`; the
            reversible `"reversible_heun"` and `"alf"`, adaptive; the multistep `"adams_bashforth"` with fixed steps and
            `"adams_moulton"`, adaptive.
        rtol: Relative tolerance of the local error, without unit: a positive number, or a tensor that broadcasts
            against every leaf of the state. Fixed steps ignore it, but for those of implicit methods, which solve their
            equations to a tenth of the tolerance.
        atol: Absolute tolerance of the local error, in state units; as `rtol`.
        args: Further arguments of `f`, of any type.
        step_size: Magnitude of fixed steps, in time units: the solve steps on `t0 + i * step_size` and interpolates
            the outputs, with an adaptive method as well, whose error estimate is then ignored. By default fixed-step
            methods step on `t_span` itself.
        stepping: `"joint"`: one step size for the whole state, and `t` reaches `f` as `[]`. `"per_sample"`: every leaf
            leads with a batch, and each sample is a problem of its own, with its own steps, status and statistics, whose
            result does not depend on its neighbours. `t` then reaches `f` as `[batch, 1, ...]`, broadcasting against a
            tensor state, or as `[batch]` with a pytree. With gradients, and with any other `save`, the accepted steps are
            computed a second time, unless step sizes are learned.
        controller: Step-size control; `PIDController()` by default where the method has an error estimate.
        events: What to watch for: an `Event` or several, each of which ends the solve, changes its state or is only
            noted, for every sample under `"per_sample"`; `Solution.events` holds what happened.
        save: What to keep: the states at `t_span`; `"steps"`, those at the ends of the accepted steps; `"dense"`,
            the states at `t_span` and `Solution.dense`, the solution as a function of time; or a `Save`, which combines
            these, can keep a function of the state in its place, and can add the solver's own estimates at its steps.
        max_steps: Greatest number of attempted steps over the whole solve; by default 10^5 for adaptive steps and none
            for fixed ones.
        compact: With `"per_sample"`, whether samples that have ended leave the batch whenever they are half of it; what
            belongs to samples in `args` then has to be a `PerSample`. With gradients the second pass, which repeats the
            accepted steps, is whole, and so is a solve whose step sizes are learned.
        progress: True for a tqdm bar, or an object with `update(n)`, told which share of the span was solved.
        callbacks: Functions that are called after attempts.
        throw: Whether a solve that does not reach its end raises. If not, `Solution.status` tells, and the outputs that
            were not reached are NaN.

    Returns:
        The solution, which unpacks as `t, x`: the times `[T]` and the states `[T, *x0.shape]`. `Solution.resume` goes on
        where it ends.

    Raises:
        SolverError: If the solve does not reach its end and `throw` is true: `MaxStepsError`, `StepUnderflowError`
            (`DiscontinuityError` if there is a suspicion), `NonFiniteError`, or, instead of the first two, `StiffnessError`,
            each with the partial solution as `error.solution`.
        TypeError: If an argument, or what `f` returns, has another type or dtype than expected.
        ValueError: If an argument, or what `f` returns, has another value, shape or device than expected, or `f` writes
            into its arguments.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> t, x = odeint(lambda t, x: x * torch.cos(t), torch.ones(3), torch.linspace(0, 1, 5), rtol=1e-6)
        >>> x.shape, round(x[-1, 0].item(), 4)
        (torch.Size([5, 3]), 2.3198)

    References:
        Hairer, Norsett, Wanner: Solving Ordinary Differential Equations I, 2nd ed., chapter II.
    """
    if torch.compiler.is_compiling():
        refuse_compiled(save=save, progress=progress, callbacks=callbacks, compact=compact, events=events)
    posed = pose(
        f,
        x0,
        t_span,
        solver=solver,
        rtol=rtol,
        atol=atol,
        args=args,
        step_size=step_size,
        stepping=stepping,
        controller=controller,
        save=save,
        max_steps=max_steps,
        events=events,
    )
    check_compact(compact, stepping)
    if torch.compiler.is_compiling():
        return with_constant_numbers(lambda: _solve_without_gradient(posed))
    if under_transform():
        _refuse_transformed(progress=progress, callbacks=callbacks, compact=compact)
    return _solve(posed, _Options(compact, progress, callbacks, throw))


@dataclass(frozen=True)
class _Options:
    """What `odeint` is told beside the problem, by the names of its arguments."""

    compact: bool
    progress: bool | ProgressBar | None
    callbacks: Callbacks | None
    throw: bool


def solve_repeating(
    repeat: Repeat,
    posed: Posed,
    *,
    progress: bool | ProgressBar | None = None,
    callbacks: Callbacks | None = None,
    throw: bool = True,
) -> Solution:
    """Solves outside of torch.compile and torch.func, without gradient, and has the steps repeated by somebody else.

    Args:
        repeat: Takes the steps again, with a gradient of its own, and shows them to what keeps the outputs.
        posed: The problem, as differentiable as it is.
        progress: As in `odeint`, and so are the arguments that follow.
        callbacks: Functions that are called after attempts.
        throw: Whether a solve that does not reach its end raises.
    """
    return _solve(posed, _Options(False, progress, callbacks, throw), repeat=repeat)


def solve_observed(
    posed: Posed,
    observers: Sequence[Observer],
    *,
    compact: bool = False,
    progress: bool | ProgressBar | None = None,
    callbacks: Callbacks | None = None,
    throw: bool = True,
) -> Solution:
    """Solves outside of torch.compile and torch.func, and shows every attempt.

    Args:
        posed: The problem.
        observers: Told of every attempt, besides what keeps the outputs.
        compact: As in `odeint`, and so are the arguments that follow.
        progress: A progress bar.
        callbacks: Functions that are called after attempts.
        throw: Whether a solve that does not reach its end raises.
    """
    return _solve(posed, _Options(compact, progress, callbacks, throw), observers=observers)


def _solve(
    posed: Posed,
    options: _Options,
    before: Ended | None = None,
    repeat: Repeat | None = None,
    observers: Sequence[Observer] = (),
) -> Solution:
    """Solves in Python, from the start or from where another solve ended."""
    callbacks = options.callbacks
    if not (callbacks is None or isinstance(callbacks, Callbacks)):
        raise TypeError(
            f"callbacks: got a {type(callbacks).__name__}, expected Callbacks(on_step=..., on_accept=..., on_reject=...)"
        )
    bar = progress_bar(options.progress)
    watchers = list(observers)
    if callbacks is not None:
        watchers.append(TellCallbacks(callbacks, posed.layout))
    shown = None if bar is None else ShowProgress(bar, posed.layout.lead.numel())
    if shown is not None:
        watchers.append(shown)

    problem = posed.problem
    with without_autocast(posed.layout.device.type):
        if repeat is not None:
            state, saved, n_evals = _solve_repeating(posed, watchers, repeat)
        elif problem.branches or problem.learns:
            state, saved, n_evals = _solve_once(posed, watchers, before)
        else:
            state, saved, n_evals = _solve_selecting(posed, watchers, options.compact, before)
        if problem.clock.differentiable is not None:
            state, saved, more = _move_where_standing(posed, state, saved)
            n_evals += more
        code = status_code(problem, state)
        if before is not None:
            saved = saved.without(before.failed)
            code = where(before.failed_in(problem), Status.SUCCESS.code, code)  # it has been diagnosed
        if posed.is_readable:
            code, more = eager_loop.diagnose(problem, state, code)
            n_evals += more
        solution = pack(posed, state, saved, code, n_evals)
    if before is not None:
        solution = before.kept_failed(solution)
    resumption: Any = "that came out of torch.func, expected one as odeint returned it outside"
    if not under_transform():
        resumption = partial(_resume, Ended.of(posed, state, solution, before), options)
    solution = replace(solution, _resumption=resumption)
    if shown is not None:
        shown.close(posed.times[0], posed.times[-1], solution.t_reached)
    return solution.raise_if_failed() if options.throw and posed.is_readable else solution


def _resume(
    ended: Ended,
    options: _Options,
    t_span: Tensor | Sequence[float],
    *,
    save: Form | Save | None,
    max_steps: int | None,
    progress: bool | ProgressBar | None,
    throw: bool | None,
) -> Solution:
    """Goes on where a solve has ended, as `Solution.resume`."""
    limit = None if max_steps is None else step_limit(max_steps, ended.posed.problem.controller.adaptive)
    posed, ended = ended.pose(t_span, None if save is None else Save.of(save), limit)
    options = replace(
        options,
        progress=options.progress if progress is None else progress,
        throw=options.throw if throw is None else throw,
    )
    return _solve(posed, options, ended)


def _refuse_transformed(**options: Any) -> None:
    """Refuses what has to read values, which `torch.func` does not let anybody do."""
    for name, value in options.items():
        if value not in (None, False):
            raise ValueError(
                f"{name}: got one under torch.func, where values cannot be read; try it outside of the transform"
            )


Solved = tuple[State, Saved, Any]
"""The last state, what was kept, and the calls of `f`."""


def _solve_once(posed: Posed, watchers: Sequence[Observer], before: Ended | None) -> Solved:
    """Once, in Python: of one problem accepted steps stay in the graph; of many, whose step sizes are learned, all attempts."""
    problem, start = posed.problem, posed.start
    saver = _saver(posed, problem, start, ListRows(posed.times))
    state, first_evals = initial_state(problem, start) if before is None else before.begin(problem, start)
    state, n_evals = eager_loop.solve(problem, state, [saver, *watchers])
    return state, saver.result(state.x, _succeeded(problem, state)), first_evals + n_evals


def _solve_selecting(posed: Posed, watchers: Sequence[Observer], compact: bool, before: Ended | None) -> Solved:
    """Many problems in Python: without gradient first, then, if somebody wants it, the accepted steps again with it."""
    problem, start, t = posed.problem, posed.start, posed.times
    trains = torch.is_grad_enabled() and any(p.requires_grad for p in problem.stepper.parameters())
    known = trains or not posed.save.only_outputs or under_transform() or in_forward_mode()
    if problem.events is not None and torch.is_grad_enabled():
        known = known or problem.events.has_differentiable_conditions(problem.clock.start, start.detach())
    known = known or is_differentiable(start) or problem.clock.differentiable is not None
    stops = problem.clock.stops
    known = known or (torch.is_grad_enabled() and stops is not None and stops.jump is not None)
    field = WatchedField(problem.f, known)
    # Otherwise there is nothing to notice, or to detach.
    watched = torch.is_grad_enabled() or under_transform() or in_forward_mode()
    events = None if problem.events is None else problem.events.without_gradient()
    clock = problem.clock.without_gradient()
    values = replace(problem, f=field if watched else problem.f, clock=clock, events=events)
    record = RecordSteps(posed.layout.lead)
    outputs = None if known else _saver(posed, values, start.detach(), _buffers(posed))
    observers: list[Observer] = [] if outputs is None else [outputs]
    if known or torch.is_grad_enabled():
        observers.append(record)
    # Steppers must compute to the bit what the repetition will: it is of what was accepted here that there is a gradient.
    with torch.set_grad_enabled(torch.is_grad_enabled() and not trains):
        at = start.detach()
        state, first_evals = initial_state(values, at) if before is None else before.begin(values, at, detached=True)
        state, n_evals = eager_loop.solve(values, state, [*observers, *watchers], compact)
    n_evals += first_evals
    jumps = problem.events is not None and problem.events.has_differentiable_jumps
    if outputs is not None and not (field.differentiable or jumps):
        return state, outputs.result(state.x, _succeeded(problem, state)), n_evals
    saver = _saver(posed, problem, start, ListRows(t))
    every_step = posed.save.every_step or problem.events is not None
    steps = record.result(state, None if every_step else _last_output(posed, state))
    chain, carry = AcceptedSteps(problem, steps), None if before is None else before.carry(problem)
    x, carry, more_evals = replay(chain, start, [saver], carry)
    success = _succeeded(problem, state)
    saved = saver.result(x, success)
    last = x if every_step else torch.where(success.unsqueeze(-1), x, state.x)
    return state._replace(x=last, carry=carry), saved, n_evals + more_evals


def _solve_repeating(posed: Posed, watchers: Sequence[Observer], repeat: Repeat) -> Solved:
    """One or many problems in Python, without gradient; their steps are repeated by somebody else."""
    problem, start, t = posed.problem, posed.start, posed.times
    learns = problem.learns
    events = problem.events if problem.events is None or learns else problem.events.without_gradient()
    values = replace(problem, clock=problem.clock if learns else problem.clock.without_gradient(), events=events)
    record = RecordSteps(posed.layout.lead)
    with torch.no_grad():
        state, first_evals = initial_state(values, start.detach())
        state, n_evals = eager_loop.solve(values, state, [record, *watchers])
    every_step = posed.save.every_step or problem.events is not None
    chain: Chain
    if learns:
        chain, kept = Attempts(problem, len(record)), record.holding(t)
    else:
        steps = record.result(state, None if every_step else _last_output(posed, state))
        chain, kept = AcceptedSteps(problem, steps), steps.holding(t)
    if posed.save.every_step:
        kept = [True] * len(chain)
    saver = _saver(posed, problem, start, ListRows(t))
    x, carry, more_evals = repeat(chain, start, saver, kept)
    success = _succeeded(problem, state)
    saved = saver.result(x, success)
    if not every_step:
        x = torch.where(success.unsqueeze(-1), x, state.x)
    return state._replace(x=x, carry=carry), saved, first_evals + n_evals + more_evals


def _last_output(posed: Posed, state: State) -> Tensor:
    """The last output time that was reached, `[*lead]`."""
    t, direction = posed.times.detach(), posed.problem.clock.direction
    reached = t * direction <= state.t * direction
    last: Tensor = torch.where(reached, t * direction, -inf).amax(0) * direction
    return last


def _solve_without_gradient(posed: Posed) -> Solution:
    """One or many problems inside of torch.compile."""
    f, start = posed.problem.f, posed.start
    if torch.is_grad_enabled() and (start.requires_grad or f(state_time(posed.times[0], start), start).requires_grad):
        raise ValueError(
            "x0, f: got something that requires a gradient, and odeint of dyn_numerics has no gradient inside "
            "torch.compile; use dyn_sensitivity.odeint, or torch.no_grad()"
        )
    with torch.no_grad():
        return solve_compiled(posed)


def solve_compiled(posed: Posed, observers: Sequence[Observer] = (), diagnose: bool = True) -> Solution:
    """Solves inside of torch.compile, without gradient.

    Args:
        posed: The problem.
        observers: Told of every attempt, besides what keeps the outputs.
        diagnose: Whether to look for the cause where it ran out of step size or of steps.
    """
    return solve_compiled_to_end(posed, observers, diagnose)[0]


def solve_compiled_to_end(
    posed: Posed, observers: Sequence[Observer] = (), diagnose: bool = True
) -> tuple[Solution, State]:
    """As `solve_compiled`, with the last state."""
    start = posed.start.detach()
    values = replace(posed.problem, clock=posed.problem.clock.without_gradient())
    with without_autocast(posed.layout.device.type):
        saver = _saver(posed, values, start, _buffers(posed))
        state, first_evals = initial_state(values, start)
        state, n_evals = compiled_loop.solve(values, state, [saver, *observers])
        saved = saver.result(state.x, _succeeded(values, state), n_evals)
        code = status_code(values, state)
        if diagnose and values.controller.adaptive:
            code, more = compiled_loop.diagnose(values, state, code)
            n_evals += more
        return pack(posed, state, saved, code, n_evals + first_evals), state


def _saver(posed: Posed, problem: Problem, start: Tensor, rows: Rows) -> Saver:
    """What keeps the things that the user wants, in rows of its own kind."""
    clock, t, save, values = problem.clock, posed.times, posed.save, posed.values
    saver: Saver | None = None
    if save.outputs and clock.lands_on_times:
        saver = SaveGrid(t, start, rows, values)
    elif save.outputs:
        saver = SaveTimes(clock, t, start, rows) if values is None else SaveValues(clock, t, start, rows, values)
    if saver is None or save.keeps("steps"):
        saver = SaveSteps(clock.first, start, t, values, saver)
    if save.keeps("dense"):
        saver = SaveDense(saver, SaveSteps(clock.first, start, t), posed.layout)
    if problem.events is not None:
        saver = SaveEvents(saver, len(problem.events), t, posed.layout)
    return SaveInternals(saver, t) if save.internals else saver


def _buffers(posed: Posed) -> BufferRows:
    """Rows for the outputs of a loop that selects."""
    size, dtype, of_time = posed.layout.size, posed.layout.dtype, posed.times.dtype
    columns: list[tuple[tuple[int, ...], torch.dtype]] = [((size,), dtype)]
    if not posed.problem.clock.lands_on_times:
        stepper = posed.problem.stepper
        columns = [((), of_time), ((), of_time), ((stepper.dense_degree + 1, size), stepper.dense_dtype(posed.start))]
    return BufferRows(posed.times.detach(), columns)


def _succeeded(problem: Problem, state: State) -> Tensor:
    """Where the end was reached, `[*lead]`."""
    return torch.as_tensor(state.t == problem.clock.end, device=state.x.device)


def _move_where_standing(posed: Posed, state: State, saved: Saved) -> tuple[State, Saved, int]:
    """Lets the ends of spans of no length move with their times, which no step does; and the calls of `f` it takes."""
    start, t = posed.start, posed.times
    standing = (t[0] == t[-1]).detach()
    if not any_lane(standing):
        return state, saved, 0
    # Where a span has a length another's numbers are taken: the field may have no value there.
    places = substitutes(standing) if standing.dim() else None
    f = Counter(posed.problem.f if places is None else posed.problem.f.take(places))
    slope = f(*substituted(places, (state_time(t[0].detach(), start), start)))
    slope = torch.where(standing.unsqueeze(-1) & torch.isfinite(slope.detach()), slope, 0)
    moved = start + (t - t[0]).to(real_dtype(start.dtype)).unsqueeze(-1) * slope
    state = state._replace(x=torch.where(standing.unsqueeze(-1), moved[-1], state.x))
    if not posed.save.outputs:
        return state, saved, f.calls
    if posed.values is not None:
        at = torch.where(standing, t, t[0])
        moved = torch.stack([posed.values(time, x) for time, x in zip(at, moved, strict=True)])
    return state, saved._replace(x=torch.where(standing.unsqueeze(-1), moved, saved.x)), f.calls


def pack(posed: Posed, state: State, saved: Saved, status: Any, n_evals: Any) -> Solution:
    """Packs what a solve found.

    Args:
        posed: The problem.
        state: The last state.
        saved: What was kept.
        status: Code of how it ended.
        n_evals: Calls of `f`.
    """
    layout, x, device = posed.values or posed.layout, saved.x, posed.layout.device
    counts = [n_evals, state.n_steps, state.n_accepted, state.n_steps - state.n_accepted, state.n_active_evals]
    counts += state.work or ()
    stats = [torch.as_tensor(count, device=device) for count in counts]
    code = torch.as_tensor(status, device=device)
    t_reached, dt_last = (torch.as_tensor(v, dtype=saved.t.dtype, device=device) for v in (state.t, state.taken))
    # Nobody judges fixed steps on the host, or the field at the end of the last one, which only its interpolant needs.
    known = layout.finite(x.detach()).cumprod(0).bool()  # [T, *lead]
    overflowed = ~torch.isfinite(state.x.detach()).all(dim=-1)
    lost = ~known.all(dim=0) & ((code == Status.SUCCESS.code) | overflowed)
    last = (known.sum(0) - 1).clamp(min=0)
    t_known = saved.t.detach().gather(0, last.unsqueeze(0)).squeeze(0)
    states = layout.unflatten(torch.where((lost & ~known).unsqueeze(-1), torch.nan, x))
    steps = saved.steps
    if steps is not None:
        own = states if steps.x is saved.x else layout.unflatten(steps.x)
        steps = Steps(steps.t.to(posed.t.dtype), own)
    return Solution(
        t=posed.t if posed.save.outputs or steps is None else steps.t,
        x=states,
        stats=Statistics(*stats),
        status_code=torch.where(lost, Status.NON_FINITE.code, code),
        t_reached=torch.where(lost, t_known, t_reached.detach()),
        dt_last=dt_last.detach(),
        steps=steps,
        dense=saved.dense,
        internals=saved.internals,
        events=saved.events,
    )
