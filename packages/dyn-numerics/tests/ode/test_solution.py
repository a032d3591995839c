"""What comes back: the record, its statistics and its status."""

import copy
import dataclasses
import pickle

import pytest
import torch

from dyn_numerics import Solution, Statistics, Status, odeint


@pytest.fixture
def sol(growth):
    return odeint(growth, torch.ones(2).double(), [0.0, 1.0, 2.0])


def test_unpacks_as_times_and_states(sol):
    t, x = sol
    assert t is sol.t
    assert x is sol.x


def test_frozen(sol):
    for record, name in ((sol, "x"), (sol.stats, "n_evals")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)


def test_everything_is_a_tensor(sol):
    assert isinstance(sol, Solution)
    assert isinstance(sol.stats, Statistics)
    counts = sol.stats.counts.values()
    assert len(counts) == 5
    assert all(count.shape == () and count.dtype == torch.int64 for count in counts)
    assert (sol.status_code.shape, sol.status_code.dtype) == ((), torch.int64)
    for value in (sol.t_reached, sol.dt_last):
        assert (value.shape, value.dtype) == ((), torch.float64)


def test_success(sol):
    assert sol.status is Status.SUCCESS
    assert sol.raise_if_failed() is sol
    assert sol.t_reached == 2
    assert 0 < sol.dt_last <= 2


def test_repr_shows_counts_as_numbers(sol):
    n = sol.stats.n_steps.item()
    assert f"n_steps={n}," in repr(sol.stats)
    assert repr(sol.stats).startswith("Statistics(n_evals=")
    assert "tensor" not in repr(sol.stats)
    assert repr(sol.stats) in repr(sol)


def test_is_itself_and_nothing_else(sol):
    other = odeint(lambda t, x: x, {"a": torch.ones(1)}, [0.0, 1.0])
    assert sol == sol
    assert sol != other
    assert len({sol, other, sol.stats, other.stats}) == 4


def test_times_are_another_tensor_than_the_argument(growth):
    t_span = torch.tensor([0.0, 1.0], requires_grad=True)
    t, _ = odeint(growth, torch.ones(1), t_span)
    assert t is not t_span
    assert torch.equal(t, t_span)
    t.sum().backward()
    assert t_span.grad.tolist() == [1, 1]


@pytest.mark.filterwarnings("error")
def test_copies(sol):
    pytree = odeint(lambda t, x: {"a": -x["a"]}, {"a": torch.ones(1)}, [0.0, 1.0], save="dense")
    assert pickle.loads(pickle.dumps(pytree)).dense(0.5)["a"].shape == (1,)
    for again in (pickle.loads(pickle.dumps(sol)), copy.deepcopy(sol)):
        assert torch.equal(again.x, sol.x)
        assert again.status is sol.status


def test_last_step_is_reported(growth):
    steps = odeint(growth, torch.ones(2).double(), [0.0, 2.0], save="steps")
    assert steps.dt_last.item() == pytest.approx(steps.t.diff()[-1].item(), rel=1e-12)
    back = odeint(growth, torch.ones(2).double(), [2.0, 0.0], solver="rk4", step_size=0.75)
    assert back.dt_last == 0.5
