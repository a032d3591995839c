"""Why a solve ran out of step size or of steps: asked once, after it has failed.

Three steps from where it stopped tell: the one that was tried last, a shorter and a longer one. They are written for host
numbers and for tensors `[*lead]` alike; a driver takes them, one after another.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.ode.attempt import Problem, State
from dyn_numerics.ode.scalar import Flag, Scalar, both, either, magnitude, minimum, negate, where
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.status import Status

__all__ = ["Probe", "is_doubtful", "probe", "probe_lengths", "suspect"]

# |dt| times the largest eigenvalue at which explicit methods lose their stability: 3.3 for dopri5, about as much for others.
EDGE_OF_STABILITY = 2.5


class Probe(NamedTuple):
    """What a step from where a solve stopped says.

    Attributes:
        dt: Its magnitude.
        change: Norm of the change of the state, in units of the tolerance.
        error: Norm of the error, in the same units.
        stiffness: Largest magnitude of an eigenvalue, per time unit; 0 where the method cannot tell, or bears any.
    """

    dt: Scalar
    change: Scalar
    error: Scalar
    stiffness: Scalar


def is_doubtful(problem: Problem, code: Any) -> Flag:
    """Where there may be a cause to find.

    Args:
        problem: The problem.
        code: Code of how it ended, an integer or `[*lead]`.
    """
    ran_out: Flag = either(code == Status.MAX_STEPS.code, code == Status.STEP_UNDERFLOW.code)
    return both(ran_out, problem.controller.adaptive)


def probe_lengths(problem: Problem, state: State) -> tuple[Scalar, Scalar, Scalar]:
    """Magnitudes of a shorter step, the one that was tried last and a longer one, none of them beyond the end.

    Args:
        problem: The problem.
        state: The state in which it ended.
    """
    left = magnitude(_constant(problem.clock.end) - _constant(state.t))
    tried = minimum(_constant(state.taken), 0.25 * left)
    return 0.25 * tried, tried, 4 * tried


def probe(problem: Problem, f: FlatField, state: State, dt: Scalar) -> Probe:
    """Takes one such step; without gradient.

    Args:
        problem: The problem.
        f: Its field.
        state: The state in which it ended.
        dt: Magnitude of the step.
    """
    stepper, norm, direction = problem.stepper, problem.error_norm, problem.clock.direction
    start, last = _constant(state.t), _constant(problem.clock.end)
    end = direction * minimum(direction * start + dt, direction * last)  # which rounding may put beyond the last time
    f = problem.clock.sided(f, start, end, state.x)
    with torch.no_grad():
        step = stepper.complete(f, end, stepper.step(f, start, end, state.x.detach(), state.carry))
        error = stepper.measure_error(step, lambda e: norm.of_step(e, state.x, step.x))
        if step.failed is not None:  # what is no solution has no error to compare
            error = torch.where(torch.as_tensor(step.failed, device=error.device) != 0, inf, error)
        change, estimate = norm.at(state.x, step.x - state.x), None if stepper.implicit else stepper.stiffness(step)
    stiffness: Scalar = 0 * dt
    if estimate is not None:
        stiffness = estimate.to(dt.dtype) if isinstance(dt, Tensor) else estimate.item()
    return Probe(dt, change, norm.read(error), stiffness)


def suspect(problem: Problem, code: Any, short: Probe, tried: Probe, long: Probe) -> Any:
    """The code of how a solve ended, where there is a suspicion that of the suspicion.

    Args:
        problem: The problem.
        code: The code without one.
        short: What the shorter step says.
        tried: What the step that was tried last says.
        long: What the longer one says.
    """
    half = problem.error_norm.of_half_the_state  # beyond such a change errors say nothing of how they grow
    at_edge = short.stiffness * tried.dt >= EDGE_OF_STABILITY
    # Near a singularity the state changes about as fast, and steps shrink to rounding; a stiff one hardly does.
    slow = short.change < 0.2 * short.stiffness * short.dt * half
    stiff = both(is_doubtful(problem, code), both(at_edge, slow))
    code = where(stiff, Status.STIFFNESS_SUSPECTED.code, code)
    # A step four times as long has 4^(error_order + 1) times the error where f is smooth, about 4 times across a jump.
    jump = both(long.change < half, long.error < 4.0**problem.error_order * tried.error)
    jump = both(code == Status.STEP_UNDERFLOW.code, both(jump, negate(tried.error <= 1)))
    return where(jump, Status.DISCONTINUITY_SUSPECTED.code, code)


def _constant(value: Scalar) -> Scalar:
    return value.detach() if isinstance(value, Tensor) else value
