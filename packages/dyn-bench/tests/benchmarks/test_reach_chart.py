"""A bar for every figure."""

import pytest
from matplotlib.figure import Figure

from dyn_bench.benchmarks.reach_chart import draw_reach, with_chart
from dyn_bench.experiment import Measurement, Outcome

FIGURES = [
    Measurement("better", 0.1, high=0.4),
    Measurement("worse", 1.0, high=0.5),
    Measurement("unknown", None, high=0.4, reason="no peer"),
    Measurement("without a bound", 3.0, low=1.0),
]


def test_bars_start_at_what_is_to_be_reached():
    (axes,) = draw_reach(FIGURES, "title").axes
    better, worse = axes.patches
    assert (better.get_x(), better.get_width()) == (1, pytest.approx(-0.75))
    assert (worse.get_x(), worse.get_width()) == (1, pytest.approx(1.0))
    assert better.get_facecolor() != worse.get_facecolor()
    low, high = axes.get_xlim()
    assert low < 0.25
    assert high > 2.0


def test_what_was_not_measured_says_so():
    (axes,) = draw_reach(FIGURES, "title").axes
    assert [text.get_text() for text in axes.texts] == ["0.1", "1", "not measured"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "better  (≤ 0.4)",
        "worse  (≤ 0.5)",
        "unknown  (≤ 0.4)",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_written_out(value):
    (axes,) = draw_reach([*FIGURES, Measurement("odd", value, high=1e-10)], "title").axes
    assert axes.texts[-1].get_text() == str(value)
    axes.figure.canvas.draw()


def test_parts_become_one():
    drawn = Figure()
    joined = with_chart("title", Outcome(FIGURES[:1], {"drawn": drawn}, {"a": 1}), Outcome(FIGURES[1:], {}, {"b": 2}))
    assert joined.measurements == FIGURES
    assert joined.records == {"a": 1, "b": 2}
    assert joined.pictures.pop("drawn") is drawn
    (chart,) = joined.pictures.values()
    assert chart.axes[0].get_title() == "title"
