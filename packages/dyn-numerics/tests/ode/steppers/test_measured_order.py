"""Orders of convergence, measured on x' = x cos t with fixed steps, in both directions of time."""

import copy
from fractions import Fraction
from functools import cache

import pytest
import torch

from dyn_numerics import ButcherTableau, Dopri8, ExplicitRungeKutta, FixedStep, odeint
from dyn_numerics.ode.tableaus.dopri8 import DOPRI8
from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, TSIT5
from dyn_numerics.ode.tableaus.vern7 import VERN7

TABLES = [EULER, MIDPOINT, HEUN, RALSTON, RK4, BOSH3, DOPRI5, TSIT5, VERN7, DOPRI8]
PAIRS = [BOSH3, DOPRI5, TSIT5, VERN7]
NATIVE = [DOPRI5, TSIT5, VERN7, DOPRI8]
FIRST_AS_LAST = [BOSH3, DOPRI5, TSIT5]
PERTURBATION = {name: Fraction(1, 1000) for name in ("b", "dense")} | {
    name: Fraction(1, 100) for name in ("a", "a_dense")
}
COEFFICIENTS = [(table, name) for table in TABLES for name in ("a", "b") if name == "b" or table.stages > 1]
BETWEEN = [(table, "dense" if table in NATIVE else "b") for table in TABLES]
BETWEEN += [(table, "a_dense") for table in (VERN7, DOPRI8)]
DERIVATIVE_ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "rk4": 3}  # min(order, 3) by Hermite
# Of the conditions of order 7 vern7's dense output misses some by 1e-5, which weighs nothing at these step sizes.
DERIVATIVE_ORDER |= {"bosh3": 3, "dopri5": 4, "tsit5": 4, "vern7": 7, "dopri8": 7}

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])


def margin(order):
    return 0.2 if order <= 4 else 0.35


def ends(order, reverse):
    """A span whose errors between 1e-3 and rounding are in the asymptotic range, with a few hundred steps at most."""
    length = 0.1 if order == 1 else 1.0 if order <= 5 else 6.0
    return (length, 0.0) if reverse else (0.0, length)


def solve(problem, table, start, end, steps, save="t_span"):
    t_span = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    x0 = torch.ones(1, dtype=torch.float64)
    return odeint(problem, x0, t_span, solver=ExplicitRungeKutta(table), controller=FixedStep(), save=save)


def measured(problem, table, fitted_order, reverse):
    start, end = ends(table.order, reverse)

    def error(steps):
        t, x = solve(problem, table, start, end, steps)
        return (x[:, 0] - problem.exact(t, start)).abs().max().item()

    return fitted_order(error)


def errors_between_the_steps(problem, table, reverse):
    """The errors of the dense output and of its derivative, as functions of the number of steps."""
    start, end = ends(table.order, reverse)

    @cache
    def dense(steps):
        return solve(problem, table, start, end, steps, save="dense").dense

    def times(steps):
        return start + (end - start) * (torch.arange(5 * steps, dtype=torch.float64) + 0.3) / (5 * steps)

    def error(steps):
        t = times(steps)
        return (dense(steps)(t)[:, 0] - problem.exact(t, start)).abs().max().item()

    def error_of_derivative(steps):
        t = times(steps)
        exact = problem.exact(t, start) * torch.cos(t)
        return (dense(steps).derivative(t)[:, 0] - exact).abs().max().item()

    return error, error_of_derivative


def most_steps(table):
    """Beyond which rounding over the step size is what is seen of a derivative."""
    return 600 if table.order <= 5 else 50


def has_order(order, measure):
    """Whether that is measured; where the error does not even come into the range of the fit, there is no order."""
    try:
        return abs(measure() - order) <= margin(order)
    except AssertionError:
        return False


def embedded_in(table, weights, order):
    """The embedded weights as a method of its own; one of order 1 may have any that sum to 1."""
    return ButcherTableau(
        name=f"{table.name} embedded",
        order=order,
        a=[[float(entry) for entry in row] for row in table.a],
        b=[float(weight) for weight in weights],
        source=table.source,
    )


def unchecked(table, **changes):
    """The table with other coefficients, which its own checks would refuse."""
    changed = copy.copy(table)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    object.__setattr__(changed, "numbers", changed._numbers())
    return changed


def perturbed(table, name):
    """The table with one coefficient changed, one that matters."""
    rows = [list(row) for row in ((table.b,) if name == "b" else getattr(table, name))]
    i, j = {
        "a": (max(i for i, weight in enumerate(table.b) if weight != 0), -1),
        "b": (0, 0),
        "dense": (3, 1),
        "a_dense": (-1, 0),
    }[name]
    rows[i][j] -= PERTURBATION[name]
    return unchecked(table, **{name: tuple(rows[0]) if name == "b" else tuple(map(tuple, rows))})


@each_table
@both_directions
def test_order_of_the_solution(table, reverse, growth, fitted_order):
    assert measured(growth, table, fitted_order, reverse) == pytest.approx(table.order, abs=margin(table.order))


EMBEDDED = [(table, table.b_hat, table.embedded_order) for table in (*PAIRS, DOPRI8)]


@pytest.mark.parametrize(
    ("table", "weights", "order"),
    [*EMBEDDED, (DOPRI8, DOPRI8.b_check, DOPRI8.check_order)],
    ids=lambda value: getattr(value, "name", ""),
)
@both_directions
def test_order_of_the_embedded_solution(table, weights, order, reverse, growth, fitted_order):
    embedded = embedded_in(table, weights, order)
    assert measured(growth, embedded, fitted_order, reverse) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(
    ("table", "weights", "order"),
    [*EMBEDDED, (DOPRI8, DOPRI8.b_check, DOPRI8.check_order)],
    ids=lambda value: getattr(value, "name", ""),
)
@both_directions
def test_one_perturbed_embedded_weight_moves_its_order_out(table, weights, order, reverse, growth, fitted_order):
    """Two of them, in fact, so that they still sum to 1."""
    first, *middle, last = weights
    shifted = [first - PERTURBATION["b"], *middle, last + PERTURBATION["b"]]
    perturbed = embedded_in(table, shifted, order=1)
    assert not has_order(order, lambda: measured(growth, perturbed, fitted_order, reverse))


def test_orders_of_the_error_of_dopri8():
    """Its two estimates, of orders 5 and 3, make one that falls as dt^8."""
    method, starts = Dopri8(), torch.linspace(0, 6, 20).tolist()

    def errors(dt):
        total = torch.zeros(3, dtype=torch.float64)
        for t0 in starts:
            found = []

            def norm(estimate, found=found):
                found.append(torch.linalg.vector_norm(estimate))
                return found[-1]

            x = torch.tensor([1 + 0.1 * t0], dtype=torch.float64)
            step = method.step(lambda t, x: torch.sin(3 * t) - x**2, t0, t0 + dt, x, None)
            combined = method.measure_error(step, norm)
            total += torch.stack([*found, combined])
        return total

    slopes = torch.log2(errors(0.05) / errors(0.025))
    expected = torch.tensor([6, 4, method.error_order + 1], dtype=torch.float64)
    torch.testing.assert_close(slopes, expected, rtol=0, atol=0.35)


@each_table
@both_directions
def test_order_between_the_steps(table, reverse, growth, fitted_order):
    error, error_of_derivative = errors_between_the_steps(growth, table, reverse)
    slope = DERIVATIVE_ORDER[table.name]
    assert fitted_order(error) == pytest.approx(table.order, abs=margin(table.order))
    assert fitted_order(error_of_derivative, most_steps(table)) == pytest.approx(slope, abs=margin(slope))


@pytest.mark.parametrize(("table", "coefficient"), COEFFICIENTS, ids=lambda value: getattr(value, "name", value))
@both_directions
def test_one_perturbed_coefficient_moves_the_order_out(table, coefficient, reverse, growth, fitted_order):
    assert not has_order(table.order, lambda: measured(growth, perturbed(table, coefficient), fitted_order, reverse))


@pytest.mark.parametrize(("table", "coefficient"), BETWEEN, ids=lambda value: getattr(value, "name", value))
@both_directions
def test_one_perturbed_coefficient_moves_the_orders_between_the_steps_out(
    table, coefficient, reverse, growth, fitted_order
):
    error, error_of_derivative = errors_between_the_steps(growth, perturbed(table, coefficient), reverse)
    assert not has_order(table.order, lambda: fitted_order(error))
    assert not has_order(DERIVATIVE_ORDER[table.name], lambda: fitted_order(error_of_derivative, most_steps(table)))


@pytest.mark.parametrize("table", FIRST_AS_LAST, ids=lambda table: table.name)
@pytest.mark.parametrize("coefficient", ["a", "b"])
def test_a_last_stage_that_is_not_the_new_state_s_is_not_reused(table, coefficient, counted, growth):
    a, b = [list(row) for row in table.a], list(table.b)
    changed = a[-1] if coefficient == "a" else b
    changed[0] -= PERTURBATION["b"]
    other = unchecked(table, a=tuple(map(tuple, a)), b=tuple(b))
    assert (table.reuses_last_stage, other.reuses_last_stage) == (True, False)
    calls = []
    for method in (table, other):
        f = counted(growth)
        solve(f, method, 0.0, 1.0, 10)
        calls.append(f.calls)
    assert calls == [1 + 10 * (table.stages - 1), 10 * table.stages]


@pytest.mark.parametrize("table", FIRST_AS_LAST, ids=lambda table: table.name)
@both_directions
def test_reusing_another_last_stage_moves_the_order_out(table, reverse, growth, fitted_order):
    a = [list(row) for row in table.a]
    a[-1][0] -= PERTURBATION["b"]
    other = unchecked(table, a=tuple(map(tuple, a)))
    assert has_order(table.order, lambda: measured(growth, other, fitted_order, reverse))  # nothing weighs that stage
    object.__setattr__(other, "numbers", other.numbers._replace(reuses_last_stage=True))
    assert not has_order(table.order, lambda: measured(growth, other, fitted_order, reverse))
