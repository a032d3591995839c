"""The first step: sensible, within the span, and at most one evaluation more."""

import pytest
import torch

from dyn_numerics import odeint

PRECISIONS = (torch.float32, torch.float64)

SPANS = [(0.0, 1e-9), (0.0, 1.0), (0.0, 1e9), (0.0, -1e-9), (5.0, -1e9), (1e9, 1e9 + 1e-3), (-1.0, 0.0), (-0.13, 1.7)]


def first_step(f, x0, span, **options):
    sol = odeint(f, torch.tensor([x0], dtype=torch.float64), span, save="steps", max_steps=2, throw=False, **options)
    return sol.t[1].item() - sol.t[0].item() if len(sol.t) > 1 else None


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("rate", [0.0, 1e-12, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("x0", [0.0, 1.0, 1e20])
def test_within_the_span(span, rate, x0, counted):
    f = counted(lambda t, x: rate * torch.cos(t) * (1 + 0 * x))
    odeint(f, torch.tensor([x0], dtype=torch.float64), span, max_steps=1, throw=False)
    low, high = min(span), max(span)
    assert all(low <= t <= high for t in f.times)


def test_costs_two_evaluations_at_the_start_and_a_step_away(counted, growth):
    f = counted(growth)
    odeint(f, torch.ones(1).double(), [2.0, 3.0], solver="dopri5", max_steps=1, throw=False)
    assert f.calls == 2 + 6 + 3 * 6  # and three steps that look for the cause of the failure
    assert f.times[0] == 2
    assert 2 < f.times[1] < 3


@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
def test_hairers_estimate_by_hand(rtol):
    """For x' = -x from 1: d0 = d1 = d2 = 1 / tolerance, so the step is (0.01 tolerance)^(1 / 5), with 5 = error order + 1."""
    tolerance = rtol + 1e-6
    step = first_step(lambda t, x: -x, 1.0, [0.0, 100.0], rtol=rtol, solver="tsit5")
    assert step == pytest.approx(min((0.01 * tolerance) ** (1 / 5), 1.0), rel=1e-3)


@pytest.mark.parametrize(
    ("x0", "rate", "curvature"),
    [
        (0.0, 1.0, 1.0),  # a hundred times the first guess, 1e-6
        (1e-3, 1.0, 0.0),  # a hundred times the first guess
        (1e4, 1.0, 0.0),  # the slope decides
        (1.0, 1e-3, 1e4),  # the curvature decides
        (1.0, 0.0, 0.0),  # nothing moves
        (1.0, 1e-16, 0.0),
    ],
)
def test_other_cases_by_hand(x0, rate, curvature):
    """With x' = rate + curvature t and atol = 1, rtol tiny: norms are magnitudes, and d2 is the curvature."""
    step = first_step(lambda t, x: rate + curvature * t + 0 * x, x0, [0.0, 1e9], solver="tsit5", rtol=1e-12, atol=1.0)
    h0 = 1e-6 if x0 < 1e-5 or rate < 1e-5 else 0.01 * x0 / rate
    steepest = max(rate, curvature)
    h1 = max(1e-6, 1e-3 * h0) if steepest < 1e-15 else (0.01 / steepest) ** (1 / 5)
    assert step == pytest.approx(min(100 * h0, h1), rel=1e-6)


def test_is_shorter_for_tighter_tolerances(growth):
    steps = [first_step(growth, 1.0, [0.0, 10.0], rtol=rtol, atol=rtol) for rtol in (1e-3, 1e-6, 1e-9)]
    assert steps[0] > steps[1] > steps[2] > 0


@pytest.mark.parametrize("t0", [1e10, 1.7e12, 1e15])
def test_advances_a_large_time_from_a_zero_state(t0):
    """Such as milliseconds since 1970, where 1e-6 is lost to rounding."""
    x = odeint(lambda t, x: torch.ones_like(x), torch.zeros(1).double(), [t0, t0 + 1000.0]).x
    assert x[-1].item() == pytest.approx(1000, rel=1e-12)


def test_an_overflow_next_to_the_start_is_survived():
    """The trial step of the estimate may leave the domain of f."""
    sol = odeint(lambda t, x: 100 * torch.sqrt(1 - x), torch.zeros(1).double(), [0.0, 0.01], rtol=1e-6)
    assert sol.x[-1].item() == pytest.approx(0.75, rel=1e-5)  # 1 - (1 - 50 t)^2


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_slope_whose_norm_overflows_in_float32(stepping):
    """It has no estimate of its own, and is solved all the same, in about as many steps as in float64."""
    rate = torch.tensor(1e13)

    def field(t, x):
        return rate.to(x) * torch.stack([x[..., 1], -x[..., 0]], -1)

    options = {"rtol": 1e-6, "atol": 1e-9, "stepping": stepping}
    single, double = (odeint(field, torch.ones(64, 2, dtype=dtype), [0.0, 1e-12], **options) for dtype in PRECISIONS)
    assert abs(single.stats.n_steps.max().item() - double.stats.n_steps.max().item()) <= 10
    torch.testing.assert_close(single.x[-1].double(), double.x[-1], rtol=1e-4, atol=1e-4)
