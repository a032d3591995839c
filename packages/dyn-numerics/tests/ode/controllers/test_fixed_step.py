from itertools import pairwise

import pytest
import torch

from dyn_numerics import Dopri5, FixedStep, odeint

GRID = [0.0, 0.3, 0.4, 1.0]


@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5", "tsit5", "vern7", "dopri8"])
def test_steps_are_the_grid(solver, growth):
    sol = odeint(growth, torch.ones(1).double(), GRID, solver=solver, controller=FixedStep(), save="steps")
    assert sol.t.tolist() == GRID
    assert (sol.stats.n_accepted, sol.stats.n_rejected) == (3, 0)


def test_tolerances_are_ignored(growth):
    x = [
        odeint(growth, torch.ones(1).double(), GRID, solver="dopri5", controller=FixedStep(), rtol=rtol).x
        for rtol in (1e-12, 1.0)
    ]
    assert torch.equal(*x)


def test_every_attempt_stands_and_the_next_goes_to_the_next_point():
    verdict = FixedStep().judge(1e9, 4, None)
    assert verdict.accept
    assert verdict.factor == float("inf")


def test_same_as_stepping_by_hand(growth):
    method, x = Dopri5(), torch.ones(1).double()
    carry = method.init(growth, torch.tensor(0.0).double(), x, None)
    for t0, t1 in pairwise(GRID):
        step = method.step(growth, t0, t1, x, carry)
        x, carry = step.x, step.carry
    found = odeint(growth, torch.ones(1).double(), GRID, solver=method, controller=FixedStep()).x[-1]
    torch.testing.assert_close(found, x, rtol=0, atol=0)
