"""Tables of Rosenbrock methods check themselves, and have the stability that is said of them."""

import copy
import pickle
from fractions import Fraction

import pytest
import torch

from dyn_numerics import RosenbrockTableau
from dyn_numerics.ode.tableaus.order_conditions import dense_residuals, residuals
from dyn_numerics.ode.tableaus.rosenbrock import RODAS5P, ROSENBROCK23

TABLES = [ROSENBROCK23, RODAS5P]
NAMES = ("name", "order", "alpha", "gamma", "b", "b_hat", "embedded_order", "dense", "dense_order", "source")
HALF = Fraction(1, 2)

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def build(table=None, **changes):
    """The table built anew from its own coefficients, some of them changed."""
    arguments = {"name": "mine", "order": 1, "alpha": [[]], "gamma": [[1]], "b": [1], "dense": [[1]], "dense_order": 1}
    arguments["source"] = "by hand"
    if table is not None:
        arguments = {name: getattr(table, name) for name in NAMES}
        arguments["b"] = [float(table.b[0]), *table.b[1:]]  # a float marks it as rounded
    return RosenbrockTableau(**{**arguments, **changes})


def shifted(rows, i, j, by=Fraction(1, 1000)):
    rows = [list(row) for row in rows]
    rows[i][j] += by
    return rows


def beta(table):
    """alpha + gamma, strictly."""
    padded = [(*row, Fraction(0)) for row in table.alpha]
    return [[a + g for a, g in zip(*rows, strict=True)] for rows in zip(padded, table.gamma, strict=True)]


def stability(table, z):
    """R(z) of x' = z x, by the definition of the stages: k = x + z (alpha + gamma) k."""
    matrix = torch.zeros(table.stages, table.stages, dtype=torch.float64)
    for i, row in enumerate(beta(table)):
        matrix[i, : i + 1] = torch.tensor([float(entry) for entry in row], dtype=torch.float64)
    matrix, ones = matrix.to(torch.complex128), torch.ones(table.stages, dtype=torch.complex128)
    b = torch.tensor([float(w) for w in table.b], dtype=torch.complex128)
    systems = torch.eye(table.stages, dtype=torch.complex128) - z[:, None, None] * matrix
    return 1 + z * (torch.linalg.solve(systems, ones.expand(len(z), -1)) @ b)


@each_table
def test_residuals_of_every_tree(table):
    """Of what was published with 16 digits; those of the dense output have been multiplied with weights of up to 100."""
    assert not table.exact
    for found, count, bound in (
        (table.order_residuals(), {2: 2, 5: 17}[table.order], 1e-14),
        (table.embedded_residuals(), {3: 4, 4: 8}[table.embedded_order], 1e-14),
        (table.dense_residuals(), {2: 2, 4: 8}[table.dense_order], 2e-13),
    ):
        assert len(found) == count
        assert max(abs(residual) for residual in found.values()) <= bound


@each_table
def test_no_order_is_understated(table):
    only = beta(table)
    for weights, order in ((table.b, table.order), (table.b_hat, table.embedded_order)):
        assert max(abs(residual) for _, residual in residuals(table.alpha, weights, order + 1, only)) > 1e-3
    found = dense_residuals(table.alpha, table.dense, table.dense_order + 1, only)
    assert max(abs(residual) for _, residual in found) > 1e-3


def test_conditions_by_hand():
    """Those of orders one to three, as Hairer and Wanner write them (IV.7, table 7.1)."""
    alpha, only, b, gamma = RODAS5P.alpha, beta(RODAS5P), RODAS5P.b, RODAS5P.gamma[0][0]
    below = [sum(row[:-1], Fraction(0)) for row in only]  # without the diagonal
    nodes = [sum(row, Fraction(0)) for row in alpha]
    inner = [sum(w * below[j] for j, w in enumerate(row[:-1])) for row in only]
    assert float(sum(b)) == pytest.approx(1, abs=1e-14)
    assert float(sum(w * x for w, x in zip(b, below, strict=True))) == pytest.approx(float(HALF - gamma), abs=1e-14)
    assert float(sum(w * c**2 for w, c in zip(b, nodes, strict=True))) == pytest.approx(1 / 3, abs=1e-14)
    third = float(Fraction(1, 6) - gamma + gamma**2)
    assert float(sum(w * x for w, x in zip(b, inner, strict=True))) == pytest.approx(third, abs=1e-14)


@each_table
def test_orders_nodes_and_rates(table):
    orders = table.order, table.embedded_order, table.error_order, table.dense_order
    assert orders == {"rosenbrock23": (2, 3, 2, 2), "rodas5p": (5, 4, 4, 4)}[table.name]
    d = 1 / (2 + 2**0.5)
    nodes, rates = {
        "rosenbrock23": ([0, 0.5, 1], [d, 0, -d]),
        "rodas5p": (  # as published beside the coefficients that they follow from
            [0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1, 1, 1],
            [
                0.21193756319429014,
                -0.42387512638858027,
                -0.3384627126235924,
                1.8046452872882734,
                2.325825639765069,
                0,
                0,
                0,
            ],
        ),
    }[table.name]
    assert [float(c) for c in table.c] == pytest.approx(nodes, abs=5e-15)
    assert [1 - share for share in table.numbers.before_end] == pytest.approx(nodes, abs=2e-15)
    assert table.numbers.rates == pytest.approx(rates, abs=5e-15)
    ends = [share for share, c in zip(table.numbers.before_end, nodes, strict=True) if c == 1]
    assert ends == [0.0] * len(ends)  # exactly, as the field is not evaluated beyond the end


@each_table
def test_numbers_are_the_transformed_coefficients(table):
    """u = gamma k: sum_j a_ij u_j is sum_j alpha_ij k_j, and so on."""
    k = [Fraction(i * i + 1, 7) for i in range(table.stages)]
    u = [float(sum(g * x for g, x in zip(row, k, strict=False))) for row in table.gamma]

    def of_k(weights):
        return float(sum(w * x for w, x in zip(weights, k, strict=False)))

    def of_u(weights):
        return sum(w * x for w, x in zip(weights, u, strict=False))

    numbers = table.numbers
    for alpha, a in zip(table.alpha, numbers.a, strict=True):
        assert of_u(a) == pytest.approx(of_k(alpha), rel=1e-12)
    for i, c in enumerate(numbers.c):
        assert u[i] / numbers.gamma - of_u(c) == pytest.approx(float(k[i]), rel=1e-10)
    assert of_u(numbers.b) == pytest.approx(of_k(table.b), rel=1e-12)
    error = [w - v for w, v in zip(table.b, table.b_hat, strict=True)]
    assert of_u(numbers.error) == pytest.approx(of_k(error), rel=1e-11)
    for power, weights in enumerate(numbers.dense):
        assert of_u(weights) == pytest.approx(of_k([row[power] for row in table.dense]), rel=1e-10)


@each_table
def test_is_l_stable(table):
    """R has no pole in the left half-plane, as gamma > 0: it is at most 1 there if it is on the imaginary axis."""
    axis = 1j * torch.logspace(-3, 6, 2000, dtype=torch.float64)
    assert stability(table, axis).abs().max() <= 1 + 1e-12
    far = stability(table, -torch.logspace(8, 10, 3, dtype=torch.float64).to(torch.complex128))
    assert far.abs().max() < 1e-6
    near = torch.tensor([-0.1, -0.05], dtype=torch.complex128)
    error = (stability(table, near) - near.exp()).abs()
    assert torch.log2(error[0] / error[1]).item() > table.order + 0.9


def test_rodas5p_is_stiffly_accurate():
    assert [float(x) for x in beta(RODAS5P)[-1]] == pytest.approx([float(w) for w in RODAS5P.b], abs=1e-14)
    assert float(RODAS5P.c[-1]) == pytest.approx(1, abs=1e-14)
    assert RODAS5P.numbers.error == [0.0] * 7 + [1.0]


def test_an_exact_table_is_checked_exactly():
    midpoint = build(gamma=[[HALF]], order=2)
    assert midpoint.exact
    assert set(midpoint.order_residuals().values()) == {Fraction(0)}
    with pytest.raises(ValueError, match=r"of the tree \[τ\] \(2 nodes\) has the residual 1.000e-20"):
        build(gamma=[[HALF + Fraction(1, 10**20)]], order=2)


@each_table
def test_unchanged_coefficients_are_accepted(table):
    assert build(table).c == table.c


@pytest.mark.parametrize(
    ("table", "name", "i", "j"),
    [
        (table, name, i, j)
        for table in TABLES
        for name in ("alpha", "gamma")
        for i, row in enumerate(getattr(table, name))
        for j in range(i)
    ],
)
def test_every_perturbed_coefficient_is_refused(table, name, i, j):
    with pytest.raises(ValueError, match=rf"tableau '{table.name}': the .*order condition of the tree \[.*\]"):
        build(table, **{name: shifted(getattr(table, name), i, j)})


@each_table
def test_every_perturbed_weight_is_refused(table):
    for i in range(table.stages):
        for name, what in (("b", "order"), ("b_hat", "embedded order")):
            weights = shifted([getattr(build(table), name)], 0, i)[0]
            with pytest.raises(ValueError, match=rf"the {what} condition of the tree τ \(1 nodes\)"):
                build(table, **{name: weights})
        for power in range(len(table.dense[0])):
            with pytest.raises(ValueError, match=r"the dense output condition of the tree"):
                build(table, dense=shifted(table.dense, i, power))


def test_another_diagonal_is_refused():
    gamma = [[*row[:-1], row[-1] + Fraction(1, 1000)] for row in RODAS5P.gamma]
    with pytest.raises(ValueError, match=r"the order condition of the tree \[τ\]"):
        build(RODAS5P, gamma=gamma)


def test_dense_output_must_end_at_the_solution():
    with pytest.raises(ValueError, match=r"the dense weight of stage 0 ends 1.000e\+00 away from its weight in b"):
        build(alpha=[[], [0]], gamma=[[1], [0, 1]], b=[1, 0], dense=[[2], [-1]])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"order": 0}, "order is 0, expected a positive integer"),
        ({"b": []}, "b is empty, expected one weight for each stage"),
        ({"alpha": []}, "alpha has 0 rows and b 1 weights, expected as many"),
        ({"gamma": [[1, 1]]}, "row 0 of gamma has 2 entries, expected 1"),
        ({"gamma": [[-1]]}, "the rows of gamma end with different numbers, expected one positive number for all"),
        ({"alpha": [[], [1]], "gamma": [[1], [0, 2]], "b": [1, 0], "dense": [[1], [0]]}, "end with different numbers"),
        ({"b_hat": [1]}, "b_hat and embedded_order go together, got only one of them"),
        ({"b_hat": [1, 0], "embedded_order": 1}, "b_hat has 2 entries, expected 1, one for each stage"),
        ({"b_hat": [1], "embedded_order": 1}, "b_hat equals b, so that every error estimate would be zero"),
        ({"dense": []}, "dense: expected 1 rows of one length, one for each stage"),
        ({"dense_order": 2}, "dense has degree 1, expected at least dense_order 2"),
        ({"b": [float("nan")]}, "got the coefficient nan, expected a finite number"),
    ],
)
def test_shapes_and_orders_that_disagree_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**changes)


def test_a_table_can_be_copied():
    assert copy.deepcopy(RODAS5P) == RODAS5P
    assert pickle.loads(pickle.dumps(RODAS5P)).numbers == RODAS5P.numbers
