"""Errors that carry what was found until then."""

import copy
import pickle

import pytest
import torch

from dyn_numerics import MaxStepsError, NonFiniteError, SolverError, Status, StepUnderflowError, odeint

FAILURES = {
    "max_steps": (MaxStepsError, Status.MAX_STEPS, lambda t, x: -x, {"max_steps": 2}),
    "singularity": (StepUnderflowError, Status.STEP_UNDERFLOW, lambda t, x: x**2, {}),
    "NaN": (NonFiniteError, Status.NON_FINITE, lambda t, x: x * torch.where(t > 0.5, torch.nan, 1.0), {}),
}

each_failure = pytest.mark.parametrize(("kind", "status", "f", "options"), FAILURES.values(), ids=FAILURES.keys())


def fail(f, **options):
    with pytest.raises(SolverError) as caught:
        odeint(f, torch.ones(1).double(), [0.0, 0.25, 2.0], **options)
    return caught.value


@each_failure
def test_kind_and_partial_solution(kind, status, f, options):
    error = fail(f, **options)
    assert type(error) is kind
    assert isinstance(error, RuntimeError)
    assert error.status is error.solution.status is status
    assert error.solution.x[0].item() == 1


@each_failure
def test_message_names_the_time_the_step_and_a_remedy(kind, status, f, options):
    error = fail(f, **options)
    solution = error.solution
    message = str(error)
    assert message.startswith(status.sentence)
    assert f"at t = {solution.t_reached.item():.10g}" in message
    assert f"step size {solution.dt_last.item():.3g}" in message
    assert f"after {solution.stats.n_steps.item()} steps" in message
    assert message.endswith(status.remedy)


@each_failure
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_keep_everything(kind, status, f, options, duplicate):
    error = fail(f, **options)
    again = duplicate(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.status is status
    torch.testing.assert_close(again.solution.x, error.solution.x, rtol=0, atol=0, equal_nan=True)


def test_pickles_with_a_dense_solution_and_a_graph():
    x0 = torch.ones(1).double().requires_grad_()
    with pytest.raises(SolverError) as caught:
        odeint(lambda t, x: x**2, x0, [0.0, 2.0], save="dense")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.solution.x.shape == (2, 1)


@each_failure
def test_without_throw_the_status_tells(kind, status, f, options):
    sol = odeint(f, torch.ones(1).double(), [0.0, 0.25, 2.0], throw=False, **options)
    assert sol.status is status
    assert not sol.status.is_success
    with pytest.raises(kind, match="It stopped at t = ") as caught:
        sol.raise_if_failed()
    assert caught.value.solution is sol
