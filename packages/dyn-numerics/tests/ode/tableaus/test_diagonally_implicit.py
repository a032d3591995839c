"""The tables of the diagonally implicit methods: stability, and the coupling of pairs."""

from copy import copy
from decimal import Decimal
from fractions import Fraction

import pytest
import torch

from dyn_numerics import ButcherTableau, DiagonallyImplicitRungeKutta, ExplicitRungeKutta
from dyn_numerics.ode.tableaus.additive import KENCARP4
from dyn_numerics.ode.tableaus.additive_tableau import AdditiveTableau
from dyn_numerics.ode.tableaus.diagonally_implicit import IMPLICIT_EULER, KVAERNO3, KVAERNO5, TRAPEZOID
from dyn_numerics.ode.tableaus.explicit import BOSH3, RK4

L_STABLE = [IMPLICIT_EULER, KVAERNO3, KVAERNO5, KENCARP4.implicit]


def growth(table, z, weights=None):
    """The stability function `1 + z b (1 - z a)^-1 1` of a table."""
    rows = [[float(w) for w in row] + [0.0] * (table.stages - len(row)) for row in table.a]
    a = torch.tensor(rows, dtype=torch.complex128)
    b = torch.tensor([float(w) for w in (table.b if weights is None else weights)], dtype=torch.complex128)
    one = torch.ones(table.stages, dtype=torch.complex128)
    z = torch.as_tensor(z, dtype=torch.complex128).unsqueeze(-1)
    stages = torch.linalg.solve(torch.eye(table.stages) - z.unsqueeze(-1) * a, one.expand(*z.shape[:-1], -1))
    return 1 + (z * stages) @ b


@pytest.mark.parametrize("table", [*L_STABLE, TRAPEZOID], ids=lambda table: table.name)
def test_is_a_stable(table):
    """On the imaginary axis no step grows; the poles are on the right, so that none grows on the left of it either."""
    y = torch.logspace(-3, 8, 2000, dtype=torch.float64)
    assert growth(table, 1j * y).abs().max() <= 1 + 1e-12
    assert table.diagonal[-1] > 0


@pytest.mark.parametrize("table", L_STABLE, ids=lambda table: table.name)
def test_is_l_stable(table):
    assert growth(table, -1e8).abs() < 1e-6
    assert growth(table, -1e2).abs() > 1e-4  # but where it is not stiff


def test_the_trapezoidal_rule_is_not_l_stable():
    assert abs(growth(TRAPEZOID, -1e8).real + 1) < 1e-6


@pytest.mark.parametrize("z", [-1e8, -3.0, 2j])
@pytest.mark.parametrize("table", [*L_STABLE[:3], TRAPEZOID], ids=lambda table: table.name)
def test_the_stepper_grows_as_the_table(table, z):
    stepper, x0 = DiagonallyImplicitRungeKutta(table), torch.ones(1, dtype=torch.complex128)

    def f(t, x):
        return z * x

    step = stepper.step(f, 0.0, 1.0, x0, stepper.init(f, torch.tensor(0.0).double(), x0, None))
    # What is left of a stiff component is the rounding of a slope of 1e8, which no stage damps.
    torch.testing.assert_close(step.x[0], growth(table, z), atol=1e-7 if abs(z) > 10 else 1e-13, rtol=0)


@pytest.mark.parametrize("table", [KVAERNO3, KVAERNO5], ids=lambda table: table.name)
def test_stages_are_of_order_two(table):
    """The simplifying condition C(2), on which the order for stiff problems rests, but for that of the explicit stage."""
    c = [float(c) for c in table.c]
    for row, node in zip(table.a, c, strict=True):
        assert abs(sum(float(w) * c[j] for j, w in enumerate(row)) - node**2 / 2) < 1e-15


def test_what_a_table_says_of_itself():
    assert [table.stiffly_accurate for table in (*L_STABLE, TRAPEZOID, RK4, BOSH3)] == [True] * 5 + [False, True]
    assert [table.explicit for table in (TRAPEZOID, RK4)] == [False, True]
    assert [table.reuses_last_stage for table in (IMPLICIT_EULER, TRAPEZOID, KVAERNO5)] == [False, True, True]
    assert TRAPEZOID.diagonal == (0, Fraction(1, 2))


def test_a_pair_is_coupled():
    for residual in (*KENCARP4.order_residuals().values(), *KENCARP4.embedded_residuals().values()):
        assert abs(residual) < Decimal("1e-24")


@pytest.mark.parametrize("row", [3, 4, 5])
def test_a_pair_that_is_not_coupled(row):
    a, gap = [list(weights) for weights in KENCARP4.explicit.a], Fraction(1, 10**9)
    a[row][1], a[row][2] = a[row][1] + gap, a[row][2] - gap  # the nodes stay
    other = copy(KENCARP4.explicit)
    object.__setattr__(other, "a", a)
    with pytest.raises(ValueError, match="a coupling condition of the order, of the tree"):
        AdditiveTableau(KENCARP4.implicit, other)


def test_pairs_that_do_not_go_together():
    with pytest.raises(ValueError, match="which has implicit stages"):
        AdditiveTableau(KENCARP4.implicit, KENCARP4.implicit)
    with pytest.raises(ValueError, match="whose b differs"):
        AdditiveTableau(KVAERNO3, BOSH3)
    with pytest.raises(ValueError, match="of other orders"):
        AdditiveTableau(KVAERNO3, RK4)


def test_engines_refuse_tables_that_are_not_theirs():
    with pytest.raises(ValueError, match=r"which has implicit stages.*DiagonallyImplicitRungeKutta"):
        ExplicitRungeKutta(KVAERNO3)
    with pytest.raises(ValueError, match="expected one number"):
        DiagonallyImplicitRungeKutta(RK4)
    half = Fraction(1, 2)
    midpoint = ButcherTableau(name="implicit_midpoint", order=2, a=[[half]], b=[1], source="none")
    with pytest.raises(ValueError, match="stiffly accurate"):
        DiagonallyImplicitRungeKutta(midpoint)
    with pytest.raises(ValueError, match="row 1 of a has 3 entries, expected 1, or 2 with one on the diagonal"):
        ButcherTableau(name="own", order=1, a=[[], [0, 0, 1]], b=[half, half], source="none")
