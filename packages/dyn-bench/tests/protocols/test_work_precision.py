"""Curves of errors over evaluations, against closed forms."""

import pytest

from dyn_bench.protocols.work_precision import Curve, Point, curves_as_markdown


def curve(order, constant, evaluations=(100, 200, 400, 800), scatter=()):
    points = [Point(10.0**-i, constant * n**-order, n) for i, n in enumerate(evaluations, start=4)]
    for i, factor in enumerate(scatter):
        points[i] = points[i]._replace(error=points[i].error * factor)
    return Curve(points)


def test_the_line_through_errors_of_an_order():
    fifth = curve(order=5, constant=1e7)
    for evaluations in (50, 300, 2000):
        assert fifth.needed(1e7 * float(evaluations) ** -5) == pytest.approx(evaluations)


def test_scatter_of_the_errors_cancels():
    """As many too small as too large, symmetric about the middle: the line stays where it was."""
    straight, scattered = curve(5, 1e7), curve(5, 1e7, scatter=(10, 0.1, 0.1, 10))
    assert scattered.largest_ratio(straight) == pytest.approx(1)


def test_the_ratio_is_the_largest_in_the_errors_that_both_have():
    other = curve(order=4, constant=1.0)  # 1e-8 ... 2.4e-12
    same_order = curve(order=4, constant=1.2**4)
    assert same_order.largest_ratio(other) == pytest.approx(1.2)
    assert other.largest_ratio(same_order) == pytest.approx(1 / 1.2)
    higher = curve(order=8, constant=200.0**4)  # equal at 200 evaluations
    # At most 1e-8, where the other takes 100 and this takes (200^4 * 1e8)^(1/8) = 141.4.
    assert higher.largest_ratio(other) == pytest.approx(2**0.5)
    # At least 200^4 * 800^-8 there would be less than the other has: 2.4e-12, where it takes 800 and this takes 400.
    assert other.largest_ratio(higher) == pytest.approx(2)
    # No errors above what counts: at 200 evaluations both have the same.
    assert higher.largest_ratio(other, most_error=200.0**-4) == pytest.approx(1)
    # In whatever order the solves came.
    assert Curve(higher.points[::-1]).largest_ratio(other) == pytest.approx(2**0.5)


@pytest.mark.parametrize("work", ["steps", "factorisations", "seconds"])
def test_other_work_has_a_line_of_its_own(work):
    points = [Point(None, float(n) ** -3, 7 + n % 2, **{work: 2 * n}) for n in (10, 20, 40)]
    found = Curve(points, work)
    assert found.works == [20, 40, 80]
    assert found.needed(30.0**-3) == pytest.approx(60)


def test_the_largest_error_over_its_tolerance_leaves_out_fixed_steps():
    found = Curve([Point(None, 1.0, 10), Point(1e-4, 3e-4, 20), Point(1e-6, 5e-6, 30), Point(1e-8, 1e-8, 40)])
    assert found.error_per_tolerance == pytest.approx(5)


def test_markdown_has_a_line_for_every_curve_that_ran_at_one_of_the_tolerances():
    records = {
        "decay": {
            "rk4": Curve([Point(None, 1.0, 10), Point(None, 0.1, 20)]).record(),
            "dopri5": Curve([Point(1e-4, 3e-4, 20), Point(1e-6, 1.234e-3, 30)]).record(),
            "other": Curve([Point(1e-6, 5e-6, 40), Point(1e-7, 1e-7, 50)]).record(),
        }
    }
    assert curves_as_markdown(records, [1e-4, 1e-6]).splitlines() == [
        "| problem | solve | 1e-04 | 1e-06 |",
        "|---|---|---|---|",
        "| decay | dopri5 | 3, 20 | 1234, 30 |",
        "| decay | other |  | 5, 40 |",
    ]
