"""A table checks itself: what it refuses, and that it names the tree."""

import copy
import pickle
from decimal import Decimal
from fractions import Fraction

import pytest

from dyn_numerics import ButcherTableau
from dyn_numerics.ode.tableaus.dopri8 import DOPRI8
from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, TSIT5
from dyn_numerics.ode.tableaus.vern7 import VERN7

TABLES = [EULER, MIDPOINT, HEUN, RALSTON, RK4, BOSH3, DOPRI5, TSIT5, VERN7, DOPRI8]
HALF = Fraction(1, 2)

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def build(table=None, **changes):
    """The table built anew from its own coefficients, some of them changed."""
    arguments = {"name": "mine", "order": 1, "a": [[]], "b": [1], "source": "by hand"}
    if table is not None:
        names = ("name", "order", "a", "b", "b_hat", "embedded_order", "b_check", "check_order", "dense", "dense_order")
        arguments = {name: getattr(table, name) for name in (*names, "a_dense", "source")}
        if not table.exact:
            arguments["b"] = [w or Decimal(0) for w in table.b]  # a Decimal marks it as rounded
    return ButcherTableau(**{**arguments, **changes})


def shifted(rows, i, j, by=Fraction(1, 1000)):
    rows = [list(row) for row in rows]
    rows[i][j] += by
    return rows


@each_table
def test_unchanged_coefficients_are_accepted(table):
    rebuilt = build(table)
    assert rebuilt.c == table.c
    assert rebuilt.reuses_last_stage == table.reuses_last_stage


@pytest.mark.parametrize(
    ("table", "i", "j"), [(t, i, j) for t in TABLES for i, row in enumerate(t.a) for j in range(len(row))]
)
def test_every_perturbed_a_is_refused(table, i, j):
    with pytest.raises(ValueError, match=rf"tableau '{table.name}': the .*order condition of the tree \[.*\]"):
        build(table, a=shifted(table.a, i, j))


@pytest.mark.parametrize(("table", "i"), [(table, i) for table in TABLES for i in range(table.stages)])
def test_every_perturbed_b_is_refused(table, i):
    b = shifted([table.b], 0, i)[0]
    with pytest.raises(ValueError, match=r"the order condition of the tree τ \(1 nodes\) has the residual 1\.000e-03"):
        build(table, b=b)


@pytest.mark.parametrize(
    ("table", "i"), [(table, i) for table in (BOSH3, DOPRI5, TSIT5, VERN7, DOPRI8) for i in range(table.stages)]
)
def test_every_perturbed_b_hat_is_refused(table, i):
    b_hat = shifted([table.b_hat], 0, i)[0]
    with pytest.raises(ValueError, match=r"the embedded order condition of the tree τ \(1 nodes\)"):
        build(table, b_hat=b_hat)


@pytest.mark.parametrize("i", range(12))
def test_every_perturbed_b_check_is_refused(i):
    b_check = shifted([DOPRI8.b_check], 0, i)[0]
    with pytest.raises(ValueError, match=r"the second embedded order condition of the tree τ \(1 nodes\)"):
        build(DOPRI8, b_check=b_check)


@pytest.mark.parametrize(
    ("table", "i", "power"),
    [
        (t, i, power)
        for t in (DOPRI5, TSIT5, VERN7, DOPRI8)
        for i, row in enumerate(t.dense)
        for power in range(len(row))
    ],
)
def test_every_perturbed_dense_coefficient_is_refused(table, i, power):
    with pytest.raises(ValueError, match=r"the dense output condition of the tree τ \(1 nodes\)"):
        build(table, dense=shifted(table.dense, i, power))


@pytest.mark.parametrize(
    ("table", "i", "j"),
    [(t, i, j) for t in (VERN7, DOPRI8) for i, row in enumerate(t.a_dense) for j in range(len(row))],
)
def test_every_perturbed_a_of_the_dense_output_is_refused(table, i, j):
    with pytest.raises(ValueError, match=r"the dense output condition of the tree \[τ\] \(2 nodes\)"):
        build(table, a_dense=shifted(table.a_dense, i, j))


def test_weights_that_sum_to_one_may_still_be_refused_and_the_tree_is_named():
    b = [Fraction(1, 3), Fraction(2, 3)]
    with pytest.raises(ValueError, match=r"the tree \[τ\] \(2 nodes\) has the residual -1\.667e-01, expected 0"):
        build(MIDPOINT, b=b)


def test_an_order_that_is_claimed_too_high_is_refused():
    with pytest.raises(ValueError, match=r"tree \[\[\[\[τ\]\]\]\]|5 nodes"):
        build(RK4, order=5)


@pytest.mark.parametrize(("third", "accepted"), [(1 / 3, True), (Decimal(1) / 3, True), (0.333333333333, False)])
def test_rounded_tables_are_checked_to_1e_minus_14(third, accepted):
    def heun3():
        return build(order=3, a=[[], [third], [0, 2 * third]], b=[0.25, 0, 0.75])

    if accepted:
        assert not heun3().exact
    else:
        with pytest.raises(ValueError, match="expected at most 1e-14"):
            heun3()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"b": []}, "b is empty"),
        ({"b": [float("nan")]}, "got the coefficient nan, expected a finite number"),
        ({"a": [[], ["1"]]}, "got the coefficient '1', expected a finite number"),
        ({"a": [[], [HALF]]}, "a has 2 rows and b 1 weights"),
        ({"a": [[0, HALF]]}, "row 0 of a has 2 entries, expected 0, or 1 with one on the diagonal"),
        ({"a": [[], []], "b": [0, 1]}, "row 1 of a has 0 entries, expected 1, or 2"),
        ({"b_hat": [1]}, "b_hat and embedded_order go together"),
        ({"embedded_order": 1}, "b_hat and embedded_order go together"),
        ({"b_hat": [1, 0], "embedded_order": 1}, "b_hat has 2 entries, expected 1"),
        ({"b_hat": [1], "embedded_order": 1}, "b_hat equals b"),
        ({"dense": [[1]]}, "dense and dense_order go together"),
        ({"dense_order": 1}, "dense and dense_order go together"),
        ({"dense": [[1], [0], [0]], "dense_order": 1}, "dense has 3 entries, expected 1 or 2, one for each stage"),
        ({"a_dense": [[1]]}, "a_dense has rows and dense is None"),
        ({"a_dense": [[1]], "dense": [[1]], "dense_order": 1}, "dense has 1 entries, expected 3"),
        ({"a_dense": [[1]], "dense": [[1]] * 3, "dense_order": 1}, "row 0 of a_dense has 1 entries, expected 2"),
        ({"b_check": [1]}, "b_check and check_order go together"),
        ({"b_check": [1, 0], "check_order": 1}, "b_check has 2 entries, expected 1"),
        ({"b_check": [1], "check_order": 1}, "b_check equals b"),
        ({"a": [[], [1]], "b": [0, 1], "dense": [[1, -1], [1]], "dense_order": 1}, "different lengths"),
        ({"dense": [[1]], "dense_order": 2}, "dense has degree 1, expected at least dense_order 2"),
        ({"order": 0, "b": [5]}, "order is 0, expected a positive integer"),
        ({"order": 2.0, "b": [1]}, "order is 2.0, expected a positive integer"),
        ({"order": True, "b": [1]}, "order is True, expected a positive integer"),
        ({"b_hat": [5], "embedded_order": 0}, "embedded_order is 0, expected a positive integer"),
        ({"dense": [[5]], "dense_order": 0}, "dense_order is 0, expected a positive integer"),
    ],
)
def test_shapes_and_orders_that_disagree_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"tableau 'mine': .*{sentence}"):
        build(**changes)


def test_dense_output_must_end_at_the_solution():
    # Of order 1 in theta, but at theta = 1 with the weights (0, 1) instead of (1/2, 1/2)
    with pytest.raises(ValueError, match=r"the dense weight of stage 0 ends -5\.000e-01 away from its weight in b"):
        build(HEUN, dense=[[1, -1], [0, 1]], dense_order=1)


def test_a_table_cannot_be_changed_and_can_be_copied():
    with pytest.raises(AttributeError):
        RK4.order = 5
    assert pickle.loads(pickle.dumps(DOPRI5)) == DOPRI5 == copy.deepcopy(DOPRI5)
    assert DOPRI5 != TSIT5
