"""A solve that ends where its state has come to rest."""

import math

import pytest
import torch

from dyn_numerics import Event, Status, SteadyState, odeint

D = torch.float64


def relax(t, x, rate=1.0):
    return rate * (1 - x)


@pytest.mark.parametrize("solver", ["tsit5", "dopri5", "bosh3", "rk4"])
def test_the_time_of_rest(solver):
    """|x'| = exp(-t) falls to 1e-3 at ln 1000."""
    options = {"step_size": 0.01} if solver == "rk4" else {"rtol": 1e-9, "atol": 1e-9}
    sol = odeint(
        relax, torch.zeros(2, dtype=D), [0.0, 1e3], events=SteadyState(rtol=0.0, atol=1e-3), solver=solver, **options
    )
    assert sol.status is Status.EVENT
    assert sol.events[0].t.item() == pytest.approx(math.log(1000), abs=1e-3)
    assert sol.events[0].x[0, 0].item() == pytest.approx(0.999, abs=1e-6)


def test_it_takes_no_evaluation():
    with_event = odeint(relax, torch.zeros(2, dtype=D), [0.0, 5.0], events=SteadyState(rtol=0.0, atol=1e-9))
    without = odeint(relax, torch.zeros(2, dtype=D), [0.0, 5.0])
    assert with_event.stats.n_evals == without.stats.n_evals
    assert torch.equal(with_event.x, without.x)


def test_relative_rates():
    """x' = x / (1 + t) grows for ever, ever more slowly: x' / x = 1e-2 at t = 99."""
    sol = odeint(
        lambda t, x: x / (1 + t), torch.ones(1, dtype=D), [0.0, 1e4], events=SteadyState(rtol=1e-2, atol=0.0), rtol=1e-8
    )
    assert sol.events[0].t.item() == pytest.approx(99, rel=1e-4)


def test_every_sample_rests_in_its_own_time():
    rates = torch.tensor([[1.0], [2.0], [0.001]], dtype=D)
    x0 = torch.tensor([[0.0], [0.0], [1.0]], dtype=D)
    sol = odeint(
        lambda t, x: rates * (1 - x),
        x0,
        [0.0, 50.0],
        events=SteadyState(rtol=0.0, atol=1e-3),
        stepping="per_sample",
        rtol=1e-9,
        atol=1e-9,
    )
    expected = torch.tensor([math.log(1000), math.log(2000) / 2, 0.0], dtype=D)  # the last is at rest from the start
    torch.testing.assert_close(sol.events[0].t[0], expected, rtol=1e-5, atol=1e-12)
    assert all(status is Status.EVENT for status in sol.status)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_gradients(stepping):
    """t = ln(rate / 1e-3) / rate, beside a sample that is at rest from the start."""
    rate = torch.tensor(0.7, dtype=D, requires_grad=True)
    x0 = torch.tensor([[0.0], [1.0]], dtype=D)
    x0 = x0 if stepping == "per_sample" else x0[0]
    sol = odeint(
        lambda t, x: relax(t, x, rate),
        x0,
        [0.0, 100.0],
        events=SteadyState(rtol=0.0, atol=1e-3),
        stepping=stepping,
        rtol=1e-10,
        atol=1e-10,
    )
    (found,) = torch.autograd.grad(sol.events[0].t.sum(), rate)
    (expected,) = torch.autograd.grad(torch.log(rate / 1e-3) / rate, rate)
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"rtol": -1.0}, ValueError),
        ({"atol": "1"}, TypeError),
        ({"rtol": 0.0, "atol": 0.0}, ValueError),
        ({"rtol": True}, TypeError),
    ],
)
def test_bad_tolerances(bad, error):
    with pytest.raises(error, match=f"{list(bad)[-1]}: got"):
        SteadyState(**bad)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_rest_from_the_start_moves_with_it(stepping):
    start = torch.tensor(0.5, dtype=D, requires_grad=True)
    t = torch.stack([start, start.detach() + 3])
    sol = odeint(relax, torch.ones(1, 1, dtype=D), t, events=SteadyState(rtol=0.0, atol=1e-3), stepping=stepping)
    assert sol.events[0].t.item() == 0.5
    assert torch.autograd.grad(sol.events[0].t.sum(), start)[0].item() == 1


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_rest_after_a_jump(stepping):
    """A kick away from rest at t = 1, one back to it at t = 2."""
    kick = Event(lambda t, x: t - 1, jump=lambda t, x: x - 1)
    back = Event(lambda t, x: t - 2, jump=lambda t, x: torch.ones_like(x))
    x0 = torch.zeros(1, 1, dtype=D)
    sol = odeint(relax, x0, [0.0, 50.0], events=[kick, back, SteadyState(rtol=0.0, atol=1e-3)], stepping=stepping)
    assert sol.events[2].t.item() == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_defaults_go_together(dtype):
    """What the tolerances of a solve leave of a slope is below what counts as rest."""
    sol = odeint(relax, torch.zeros(2, dtype=dtype), [0.0, 1e4], events=SteadyState())
    assert sol.status is Status.EVENT
    assert sol.events[0].t.item() < 10
