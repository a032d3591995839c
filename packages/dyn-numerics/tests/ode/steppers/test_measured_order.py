"""Orders of convergence of what no solve shows: embedded solutions, and tables with one wrong coefficient.

The orders of the methods themselves and of their dense output are promises of the contracts.
"""

import copy
from fractions import Fraction

import pytest
import torch

from dyn_numerics import ButcherTableau, Dopri8, ExplicitRungeKutta
from dyn_numerics.contracts import InterpolantContract, StepperContract
from dyn_numerics.ode.tableaus.dopri8 import DOPRI8
from dyn_numerics.ode.tableaus.explicit import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT, RALSTON, RK4, TSIT5
from dyn_numerics.ode.tableaus.vern7 import VERN7

TABLES = [EULER, MIDPOINT, HEUN, RALSTON, RK4, BOSH3, DOPRI5, TSIT5, VERN7, DOPRI8]
PAIRS = [BOSH3, DOPRI5, TSIT5, VERN7]
PERTURBATION = {"a": Fraction(1, 100), "b": Fraction(3, 10_000), "dense": Fraction(3, 10_000)}
COEFFICIENTS = [(table, name) for table in TABLES for name in ("a", "b") if name == "b" or table.stages > 1]


def contract(table):
    made = {"make": lambda self: ExplicitRungeKutta(table)}
    return type("Contract", (StepperContract, InterpolantContract), made)()


def unchecked(table, **changes):
    """The table with other coefficients, which its own checks would refuse."""
    changed = copy.copy(table)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
        object.__setattr__(changed, "numbers", changed._numbers())
    return changed


EMBEDDED = [(table, table.b_hat, table.embedded_order) for table in (*PAIRS, DOPRI8)]


@pytest.mark.parametrize(
    ("table", "weights", "order"),
    [*EMBEDDED, (DOPRI8, DOPRI8.b_check, DOPRI8.check_order)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_order_of_the_embedded_solution(table, weights, order):
    embedded = ButcherTableau(
        name=f"{table.name} embedded",
        order=order,
        a=[[float(entry) for entry in row] for row in table.a],
        b=[float(weight) for weight in weights],
        source=table.source,
    )
    contract(embedded).test_order()
    contract(embedded).test_order_in_reversed_time()


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


@pytest.mark.parametrize(("table", "coefficient"), COEFFICIENTS, ids=lambda value: getattr(value, "name", value))
def test_one_perturbed_coefficient_moves_the_order_out(table, coefficient):
    if coefficient == "a":
        row = max(i for i, weight in enumerate(table.b) if weight != 0)  # the last that matters
        a = [list(row) for row in table.a]
        a[row][-1] += PERTURBATION["a"]
        perturbed = unchecked(table, a=tuple(map(tuple, a)))
    else:
        b = list(table.b)
        b[0] -= PERTURBATION["b"]
        perturbed = unchecked(table, b=tuple(b))
    with pytest.raises(AssertionError, match=r"order: (measured|only)"):
        contract(perturbed).test_order()


@pytest.mark.parametrize("table", [DOPRI5, TSIT5, VERN7, DOPRI8], ids=lambda table: table.name)
def test_one_perturbed_dense_coefficient_moves_the_order_between_the_steps_out(table):
    dense = [list(row) for row in table.dense]
    dense[3][1] += PERTURBATION["dense"]
    perturbed = unchecked(table, dense=tuple(map(tuple, dense)))
    with pytest.raises(AssertionError, match="dense_order: measured"):
        contract(perturbed).test_order_between_the_steps()
