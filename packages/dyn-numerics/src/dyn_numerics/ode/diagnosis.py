"""Why a solve ran out of step size or of steps: asked once, after it has failed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dyn_numerics.ode.attempt import Problem, State
from dyn_numerics.ode.flat_field import Counter
from dyn_numerics.ode.scalar import Scalar, both, either, magnitude, minimum, negate, where
from dyn_numerics.ode.stepper import Step
from dyn_numerics.status import Status

__all__ = ["diagnose"]

# |dt| times the largest eigenvalue at which explicit methods lose their stability: 3.3 for dopri5, about as much for others.
EDGE_OF_STABILITY = 2.5


def diagnose(problem: Problem, state: State, code: Any) -> tuple[Any, int]:
    """Looks for the cause of failures: steps from where they happened, the last one tried, a shorter and a longer one.

    Args:
        problem: The problem.
        state: The state in which it ended.
        code: Code of how it ended, an integer or `[*lead]`.

    Returns:
        The code, where there is a suspicion that of the suspicion, and the calls of `f` it took.
    """
    doubtful = either(code == Status.MAX_STEPS.code, code == Status.STEP_UNDERFLOW.code)
    if not problem.controller.adaptive or not (doubtful.any() if isinstance(doubtful, Tensor) else doubtful):
        return code, 0
    f = Counter(problem.f)
    with torch.no_grad():
        start = _constant(state.t)
        left = magnitude(_constant(problem.clock.end) - start)
        tried = minimum(_constant(state.taken), 0.25 * left)
        advances = start + 0.25 * tried != start
        quarter = where(advances, 0.25 * tried, tried)

        def step(dt: Scalar) -> tuple[Step, Scalar]:
            end = start + problem.clock.direction * dt
            found = problem.stepper.step(f, start, end, state.x.detach(), state.carry)
            error = problem.stepper.measure_error(found, lambda e: problem.error_norm.of_step(e, state.x, found.x))
            return found, error

        short, _ = step(quarter)
        _, error = step(tried)
        _, error_of_longer = step(4 * tried)
        change = problem.error_norm.at(state.x, short.x - state.x)
        stiffness = problem.stepper.stiffness(short)
        if stiffness is not None:
            edge: Any = (stiffness * tried >= EDGE_OF_STABILITY) & torch.as_tensor(tried > 0)
            edge = edge if isinstance(start, Tensor) else bool(edge)
            # Near a singularity the state changes about as fast, and steps shrink to rounding; a stiff one hardly does.
            slow: Any = change < 0.2 * stiffness * quarter * problem.error_norm.of_half_the_state
            slow = slow if isinstance(start, Tensor) else bool(slow)
            stiff = both(both(doubtful, advances), both(edge, slow))
            code = where(stiff, Status.STIFFNESS_SUSPECTED.code, code)
        # A step four times as long has 4^(error_order + 1) times the error where f is smooth, about 4 times across a jump.
        half = problem.error_norm.of_half_the_state  # beyond it errors say nothing of how they grow
        jump = both(error_of_longer < half, error_of_longer < 4.0**problem.error_order * error)
        jump = both(code == Status.STEP_UNDERFLOW.code, both(jump, negate(error <= 1)))
        code = where(jump, Status.DISCONTINUITY_SUSPECTED.code, code)
    return code, f.calls


def _constant(value: Scalar) -> Scalar:
    return value.detach() if isinstance(value, Tensor) else value
