"""The search for a zero."""

import math

import pytest
import torch

from dyn_numerics.ode.events.locate import first_crossing


def counting(f):
    calls = []

    def counted(x):
        calls.append(x)
        return f(x)

    return counted, calls


@pytest.mark.parametrize(
    ("f", "zero"),
    [
        (lambda x: 0.3 - x, 0.3),
        (lambda x: x - 1e-9, 1e-9),
        (lambda x: math.cos(2 * x), math.pi / 4),
        (lambda x: 1 - math.exp(3 * (x - 0.9)), 0.9),
        (lambda x: x**3 - 0.5, 0.5 ** (1 / 3)),
    ],
)
def test_smooth_functions_take_few_evaluations(f, zero):
    g, calls = counting(f)
    found = first_crossing(g, True, 0.0, math.copysign(1, f(0.0)), f(1.0))
    assert found == pytest.approx(zero, abs=1e-15)
    assert f(found) * f(1.0) >= 0  # on the far side
    assert len(calls) <= (13 if zero != 0.3 else 11)  # a zero that is met exactly is the end
    assert all(0 <= x <= 1 for x in calls)


@pytest.mark.parametrize(
    ("f", "zero"),
    [
        (lambda x: 1.0 if x < 0.3 else -1.0, 0.3),
        (lambda x: math.inf if x < 0.7 else -math.inf, 0.7),
        (lambda x: (0.6 - x) ** 9, 0.6),
        (lambda x: math.exp(-50 * x) - 1e-5, math.log(1e5) / 50),
    ],
)
def test_no_function_takes_more_than_bisection_and_two(f, zero):
    g, calls = counting(f)
    assert first_crossing(g, True, 0.0, 1.0, f(1.0)) == pytest.approx(zero, abs=1e-15 if zero != 0.6 else 1e-6)
    assert len(calls) <= 55
    assert all(0 <= x <= 1 for x in calls)


def test_many_at_once():
    zeros = torch.tensor([0.3, 0.7, 1e-9, 2.0], dtype=torch.float64)
    sought = torch.tensor([True, True, True, False])
    ones = torch.ones(4, dtype=torch.float64)
    found = first_crossing(lambda x: zeros - x, sought, 0 * ones, ones, zeros - 1)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.7, 1e-9, 1.0], dtype=torch.float64), rtol=0, atol=1e-15)


def test_a_zero_at_the_end():
    assert first_crossing(lambda x: 1 - x, True, 0.0, 1.0, 0.0) == 1.0


def test_a_sign_that_is_there_from_the_start():
    assert first_crossing(lambda x: -1.0 - x, True, 0.0, 1.0, -2.0) == 0.0
    assert first_crossing(lambda x: -1.0 - x, True, 0.25, 1.0, -2.0) == 0.25
