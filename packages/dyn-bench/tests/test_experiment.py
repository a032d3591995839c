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
    assert measurement.verdict == ("reached" if passed else f"missed, {measurement.miss}")


@pytest.mark.parametrize(("value", "sentence"), [(0.5, "0.5 below 1"), (2.5, "0.5 above 2"), (nan, "nan is no number")])
def test_a_miss_says_by_how_much(value, sentence):
    assert Measurement("figure", value, 1.0, 2.0).miss == sentence


def test_what_was_not_measured_neither_passes_nor_misses():
    measurement = Measurement("figure", None, high=0.4, reason="no peer")
    assert measurement.passed is False
    assert measurement.miss is None
    assert measurement.verdict == "not measured (no peer)"


@pytest.mark.parametrize(("value", "reason"), [(None, None), (1.0, "no peer")])
def test_either_a_figure_or_a_reason(value, reason):
    with pytest.raises(ValueError, match=r"figure: got value .* expected a figure or the reason"):
        Measurement("figure", value, reason=reason)


@pytest.mark.parametrize(
    ("low", "high", "signs"),
    [(0.99, 1.01, "0.99 … 1.01"), (-inf, 1 / 45, "≤ 0.02222"), (0.99, inf, "≥ 0.99"), (1, 1, "1"), (-inf, inf, "any")],
)
def test_the_interval_in_signs(low, high, signs):
    assert Measurement("figure", 0.0, low, high).expected == signs
