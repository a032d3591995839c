"""Figures of problems that are known."""

from math import exp, inf, isnan

import pytest
import torch
from torch import nn

import dyn_numerics
from dyn_numerics import Event, Save
from dyn_sensitivity.live_bytes import LiveBytes
from dyn_sensitivity.problem_survey import survey


@pytest.fixture
def rate():
    return torch.tensor(1.0, requires_grad=True)


def turn(t, x, rate):
    return rate * torch.stack([x[..., 1], -x[..., 0]], -1)


def decay(t, x, rate):
    return -rate * x


def test_sizes_and_steps(rate):
    net, x0 = nn.Linear(2, 2), torch.ones(5, 2, requires_grad=True)
    found = survey(lambda t, x, rate: rate * net(x), x0, [0.0, 1.0], args=(rate,), rtol=1e-8)
    assert (found.n_state, found.n_inputs, found.state_bytes) == (10, 10 + 1 + 4 + 2, 80)
    solution = dyn_numerics.odeint(lambda t, x: net(x), x0.detach(), [0.0, 1.0], rtol=1e-8)
    assert found.n_steps == solution.stats.n_accepted
    assert found.solver == "Tsit5"
    assert found.dense_bytes == 5 * 80


@pytest.mark.parametrize(
    "options",
    [
        {"rtol": 1e-10, "atol": 1e-10},
        {"rtol": 1e-10, "atol": 1e-10, "stepping": "per_sample"},
        {"solver": "rk4"},
        {"solver": "rk4", "step_size": 0.05},
    ],
)
@pytest.mark.parametrize("end", [2.0, -2.0])
def test_a_step_keeps_its_share_of_what_the_whole_solve_keeps(rate, options, end):
    # A method of fixed steps takes one to each output; of others, outputs would keep something too.
    x0, grid = torch.rand(30, 2), torch.linspace(0, end, 2 if "rtol" in options else 41)

    def kept(t_span):
        with LiveBytes() as memory:
            solution = dyn_numerics.odeint(turn, x0, t_span, args=(rate,), **options)
            return memory.live, int(solution.stats.n_accepted.max())

    kept(grid)
    (all_, steps), found = kept(grid), survey(turn, x0, grid, args=(rate,), **options)
    assert found.n_steps == pytest.approx(steps, abs=1)
    assert found.autograd_bytes == pytest.approx(all_, rel=0.1)


def test_one_step_is_enough(rate):
    found = survey(turn, torch.rand(3, 2), [0.0, 1e-3], args=(rate,))
    assert found.n_steps == 1
    assert found.step_bytes > 0


def test_a_span_of_no_length_is_refused(rate):
    with pytest.raises(ValueError, match="no length"):
        survey(turn, torch.rand(3, 2), [1.0, 1.0], args=(rate,))


def test_eigenvalue_times_step(rate):
    steps = {"solver": "dopri5", "step_size": 0.01, "args": (rate,)}
    found = survey(lambda t, x, rate: -30 * rate * x, torch.ones(2), [0.0, 1.0], **steps)
    assert found.stiffness == pytest.approx(0.3, rel=0.01)
    assert not found.is_stiff
    # Of the samples the one where it is greatest; steps that one does not take are none of its own.
    speeds = torch.tensor([[1.0], [20.0]])
    each = {"stepping": "per_sample", "args": (rate,), "step_size": 0.01, "solver": "dopri5"}
    times = torch.tensor([[0.0, 0.0], [1.0, 0.1]])
    found = survey(lambda t, x, rate: -speeds * rate * x, torch.ones(2, 1), times, **each)
    assert found.stiffness == pytest.approx(0.2, rel=0.01)
    assert survey(decay, torch.ones(2), [0.0, 1.0], args=(rate,), solver="kvaerno3").stiffness is None


def test_stiffness_is_seen_with_steps_at_the_edge_and_by_failure(rate):
    speeds = torch.tensor([1.0, 1000.0])

    def stiff(t, x, rate):
        return -rate * speeds * x

    found = survey(stiff, torch.ones(2), [0.0, 0.5], args=(rate,))
    assert found.is_stiff
    assert not found.failed_as_stiff
    assert found.drift > 1e6
    found = survey(stiff, torch.ones(2), [0.0, 5.0], args=(rate,), max_steps=300)
    assert found.is_stiff
    assert found.failed_as_stiff
    assert found.solver == "StiffnessSwitching"
    assert found.n_steps < 100


def test_drift_grows_as_errors_do_backwards(rate):
    def drift(f, end, tolerance=1e-6):
        return survey(f, torch.ones(2), [0.0, end], args=(rate,), rtol=tolerance, atol=tolerance).drift

    assert drift(turn, 5.0) < 20
    assert drift(turn, -5.0) < 20
    assert drift(lambda t, x, rate: rate * x, 5.0) < 20
    few, many = drift(decay, 4.0), drift(decay, 8.0)
    assert exp(2) < many / few < exp(10)  # of what an error at the end grows by, exp(4); that error scatters
    assert 1 < many < 10 * exp(8)
    speeds = torch.tensor([1.0, 40.0])
    assert drift(lambda t, x, rate: -rate * speeds * x, 1.0) > 1e6


def test_what_cannot_be_solved_back_drifts_without_bound(rate):
    # All that starts far out is in the same place at the end.
    found = survey(lambda t, x, rate: -rate * x**3, 1e3 * torch.ones(1), [0.0, 1.0], args=(rate,))
    assert found.drift == inf


def test_drift_is_that_of_the_worst_sample_and_leaf(rate):
    speeds = torch.tensor([[0.0], [4.0]])
    options = {"args": (rate,), "rtol": 1e-6, "atol": 1e-6}

    def field(t, x, rate):
        return {"a": -rate * speeds * x["a"], "b": 0 * x["b"]}

    x0 = {"a": torch.ones(2, 1), "b": torch.ones(2)}
    for stepping in ("joint", "per_sample"):
        assert 1e2 < survey(field, x0, [0.0, 3.0], stepping=stepping, **options).drift < 1e7
    times = torch.tensor([[0.0, 0.0], [1.5, 0.5], [3.0, 0.5]])  # the second ends early
    assert survey(field, x0, times, stepping="per_sample", **options).drift < 1e2


def test_nothing_is_solved_back_across_events(rate):
    event = Event(lambda t, x, rate: x[0] - 0.5, terminal=False)
    assert isnan(survey(turn, torch.ones(2), [0.0, 1.0], args=(rate,), events=event).drift)


def test_what_a_user_saves_does_not_matter(rate):
    plain = survey(turn, torch.ones(2), [0.0, 1.0], args=(rate,))
    save = Save(fn=lambda t, x: x[0])
    assert survey(turn, torch.ones(2), [0.0, 1.0], args=(rate,), save=save).n_steps == plain.n_steps
