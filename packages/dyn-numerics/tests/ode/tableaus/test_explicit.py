"""The tables that come along: their residuals and what follows from their coefficients."""

from fractions import Fraction

import pytest

from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, TSIT5
from dyn_numerics.ode.tableaus.order_conditions import dense_residuals, residuals, rooted_trees

TABLES = [EULER, MIDPOINT, HEUN, RALSTON, RK4, BOSH3, DOPRI5, TSIT5]
ORDERS = {  # of the solution, the embedded one and the dense output
    "euler": (1, None, None),
    "midpoint": (2, None, None),
    "heun": (2, None, None),
    "ralston": (2, None, None),
    "rk4": (4, None, None),
    "bosh3": (3, 2, None),
    "dopri5": (5, 4, 4),
    "tsit5": (5, 4, 4),
}

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@each_table
def test_orders(table):
    assert (table.order, table.embedded_order, table.dense_order) == ORDERS[table.name]


@each_table
def test_residuals_of_every_tree(table):
    assert table.exact == (table is not TSIT5)
    bound = 0 if table.exact else Fraction(1, 10**14)
    for found, order in (
        (table.order_residuals(), table.order),
        (table.embedded_residuals(), table.embedded_order),
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
    if table.dense is not None:
        assert largest(dense_residuals(table.a, table.dense, table.dense_order + 1)) > 1e-5


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
    if table.b_hat is None:
        assert table.error_weights is None
    else:
        assert table.error_weights == tuple(b - b_hat for b, b_hat in zip(table.b, table.b_hat, strict=True))
        assert abs(sum(table.error_weights)) <= 1e-14


def test_error_weights_of_dopri5():
    """Against the coefficients E of Hairer's program DOPRI5."""
    assert DOPRI5.error_weights == (
        Fraction(71, 57600),
        0,
        Fraction(-71, 16695),
        Fraction(71, 1920),
        Fraction(-17253, 339200),
        Fraction(22, 525),
        Fraction(-1, 40),
    )


@each_table
def test_only_pairs_reuse_their_last_stage(table):
    assert table.reuses_last_stage == (table.name in ("bosh3", "dopri5", "tsit5"))
    if table.reuses_last_stage:
        assert table.c[-1] == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("table", [DOPRI5, TSIT5], ids=lambda table: table.name)
def test_dense_output_ends_with_the_slope_at_the_end(table):
    """Which makes the interpolated solution continuously differentiable: b_i'(1) = 0 for all but the last stage."""
    slopes = [float(sum(power * c for power, c in enumerate(row, start=1))) for row in table.dense]
    assert slopes == pytest.approx([0] * (table.stages - 1) + [1], abs=1e-12)
    assert [float(row[0]) for row in table.dense] == [1] + [0] * (table.stages - 1)  # and begins with that at the start
