"""Measurements against the interval that they are expected in."""

from math import inf, nan

import pytest

from dyn_bench.experiment import Measurement


@pytest.mark.parametrize(
    ("value", "low", "high", "passed"),
    [
        (1.0, 0.0, 2.0, True),
        (0.0, 0.0, 2.0, True),
        (2.0, 0.0, 2.0, True),
        (-0.1, 0.0, 2.0, False),
        (2.1, 0.0, 2.0, False),
        (nan, -inf, inf, False),
        (inf, 0.0, 2.0, False),
    ],
)
def test_passed(value, low, high, passed):
    measurement = Measurement("figure", value, low, high)
    assert measurement.passed is passed
    assert (measurement.miss is None) is passed


@pytest.mark.parametrize(
    ("value", "sentence"), [(0.5, "0.5 is 0.5 below 1"), (2.5, "2.5 is 0.5 above 2"), (nan, "nan is no number")]
)
def test_a_miss_says_by_how_much(value, sentence):
    assert Measurement("figure", value, 1.0, 2.0).miss == sentence
