"""The tables that come along: their residuals and what follows from their coefficients."""

from fractions import Fraction

import pytest

from dyn_numerics.ode.tableaus.dopri8 import DOPRI8
from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, RK4_PAIR, TSIT5
from dyn_numerics.ode.tableaus.order_conditions import dense_residuals, residuals, rooted_trees
from dyn_numerics.ode.tableaus.vern7 import VERN7

TABLES = [EULER, MIDPOINT, HEUN, RALSTON, RK4, RK4_PAIR, BOSH3, DOPRI5, TSIT5, VERN7, DOPRI8]
ORDERS = {  # of the solution, the embedded one, the dense output and the error estimate
    "euler": (1, None, None, None),
    "midpoint": (2, None, None, None),
    "heun": (2, None, None, None),
    "ralston": (2, None, None, None),
    "rk4": (4, None, None, None),
    "rk4(3)": (4, 3, None, 3),
    "bosh3": (3, 2, None, 2),
    "dopri5": (5, 4, 4, 4),
    "tsit5": (5, 4, 4, 4),
    "vern7": (7, 6, 6, 6),
    "dopri8": (8, 5, 7, 7),
}

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@each_table
def test_orders(table):
    found = table.order, table.embedded_order, table.dense_order, table.error_order
    assert found == ORDERS[table.name]
    assert table.check_order == (3 if table is DOPRI8 else None)


@each_table
def test_residuals_of_every_tree(table):
    assert table.exact == (table.name not in ("tsit5", "vern7", "dopri8"))
    bound = 0 if table.exact else Fraction(1, 10**14)
    for found, order in (
        (table.order_residuals(), table.order),
        (table.embedded_residuals(), table.embedded_order),
        (table.check_residuals(), table.check_order),
        (table.dense_residuals(), table.dense_order),
    ):
        trees = [tree for nodes in range(1, (order or 0) + 1) for tree in rooted_trees(nodes)]
        assert sorted(found) == sorted(trees)
        assert all(abs(residual) <= bound for residual in found.values())


@each_table
def test_no_order_is_understated(table):
    """Each order is the largest that the coefficients have: one more leaves a residual far above rounding."""

    def largest(found):
        return max(abs(residual) for _, residual in found)

    assert largest(residuals(table.a, table.b, table.order + 1)) > 1e-5
    if table.b_hat is not None:
        assert largest(residuals(table.a, table.b_hat, table.embedded_order + 1)) > 1e-5
    if table.b_check is not None:
        assert largest(residuals(table.a, table.b_check, table.check_order + 1)) > 1e-5
    if table.dense is not None:
        assert largest(dense_residuals(table.dense_stages, table.dense, table.dense_order + 1)) > 1e-5


@pytest.mark.parametrize(
    ("table", "c"),
    [
        (EULER, (0,)),
        (MIDPOINT, (0, Fraction(1, 2))),
        (HEUN, (0, 1)),
        (RALSTON, (0, Fraction(2, 3))),
        (RK4, (0, Fraction(1, 2), Fraction(1, 2), 1)),
        (BOSH3, (0, Fraction(1, 2), Fraction(3, 4), 1)),
        (DOPRI5, (0, Fraction(1, 5), Fraction(3, 10), Fraction(4, 5), Fraction(8, 9), 1, 1)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_nodes_of_rational_tables(table, c):
    assert table.c == c


def test_nodes_of_tsit5():
    c = [0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1]  # Tsitouras (2011), table 1
    assert [float(node) for node in TSIT5.c] == pytest.approx(c, rel=0, abs=1e-15)


@each_table
def test_error_weights_are_what_b_has_over_b_hat(table):
    embedded = [weights for weights in (table.b_hat, table.b_check) if weights is not None]
    assert len(table.error_weights) == len(embedded)
    for found, weights in zip(table.error_weights, embedded, strict=True):
        assert found == tuple(b - b_hat for b, b_hat in zip(table.b, weights, strict=True))
        assert abs(sum(found)) <= 1e-14


def test_error_weights_of_dopri5():
    """Against the coefficients E of Hairer's program DOPRI5."""
    (found,) = DOPRI5.error_weights
    assert found == (
        Fraction(71, 57600),
        0,
        Fraction(-71, 16695),
        Fraction(71, 1920),
        Fraction(-17253, 339200),
        Fraction(22, 525),
        Fraction(-1, 40),
    )


def test_error_weights_of_dopri8():
    """Against the coefficients er1 and er12 of Hairer's program DOP853, and 1 - bhh1."""
    first, second = DOPRI8.error_weights
    assert (first[0], first[-1]) == (
        Fraction("0.01312004499419488073250102996"),
        Fraction("-0.02235530786388629525884427845"),
    )
    assert second[1:8] == tuple(DOPRI8.b[1:8])
    assert second[0] == DOPRI8.b[0] - Fraction("0.244094488188976377952755905512")


@pytest.mark.parametrize("table", [VERN7, DOPRI8], ids=lambda table: table.name)
def test_nodes_of_the_dense_stages(table):
    nodes = {"vern7": [0.29, 0.125, 0.25, 0.53, 0.79], "dopri8": [0.1, 0.2, 7 / 9]}[table.name]
    assert [float(sum(row)) for row in table.a_dense] == pytest.approx(nodes, rel=0, abs=1e-15)
    assert table.dense_stages[table.stages] == table.b  # the field at the new state


@each_table
def test_only_pairs_reuse_their_last_stage(table):
    assert table.reuses_last_stage == (table.name in ("rk4(3)", "bosh3", "dopri5", "tsit5"))
    if table.reuses_last_stage:
        assert table.c[-1] == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("table", [DOPRI5, TSIT5, VERN7, DOPRI8], ids=lambda table: table.name)
def test_dense_output_ends_with_the_slope_at_the_end(table):
    """Which makes the interpolated solution continuously differentiable: b_i'(1) = 0 for all but the stage there."""
    end = table.stages - 1 if table.reuses_last_stage else table.stages
    slopes = [float(sum(power * c for power, c in enumerate(row, start=1))) for row in table.dense]
    assert slopes == pytest.approx([float(i == end) for i in range(len(slopes))], abs=1e-12)
    assert [float(row[0]) for row in table.dense] == pytest.approx([1] + [0] * (len(slopes) - 1), abs=1e-14)
