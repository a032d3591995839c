"""The loosest tolerance that is tight enough."""

import pytest
import torch

from dyn_bench.protocols.equal_error import loosest_solve, loosest_tolerance
from dyn_bench.protocols.solve import Solve
from dyn_numerics import SolverError, fixed_point

TOLERANCES = [2.0**-i for i in range(12)]


@pytest.fixture
def prepared():
    return []


@pytest.mark.parametrize("factor", [0.3, 1.0, 40.0])
def test_it_is_the_loosest(prepared, factor):
    def prepare(tolerance):
        prepared.append(tolerance)
        return Solve(lambda: factor * tolerance * torch.tensor([0.1, 1.0]), lambda error: error)

    expected = next(tolerance for tolerance in TOLERANCES if factor * tolerance <= 0.1)
    assert loosest_solve(prepare, TOLERANCES, bound=0.1).run()[1].item() == pytest.approx(factor * expected)
    assert len(prepared) <= 5  # halving the interval
    assert loosest_tolerance(prepare, TOLERANCES, bound=0.1) == expected


@pytest.mark.parametrize("error", [1.0, float("nan"), float("inf")])
def test_the_tightest_is_taken_where_none_will_do(prepared, error):
    def prepare(tolerance):
        prepared.append(tolerance)
        return Solve(lambda: torch.tensor([error]), lambda values: values)

    loosest_solve(prepare, TOLERANCES, bound=0.1)
    assert prepared[-1] == TOLERANCES[-1]
    assert TOLERANCES[-1] not in prepared[:-1]


def test_a_solve_that_fails_is_not_tight_enough():
    def values(tolerance):
        if tolerance > 0.25:
            fixed_point(lambda z: z + 1, torch.zeros(1, 1), solver="fixed_point", max_steps=1)
        return torch.zeros(1)

    solve = loosest_solve(lambda tolerance: Solve(lambda: tolerance, values), TOLERANCES, bound=0.1)
    assert solve.run() == 0.25
    with pytest.raises(SolverError):
        values(0.5)
