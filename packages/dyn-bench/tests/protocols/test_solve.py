"""Prepared solves against closed forms."""

import pytest
import torch

from dyn_bench.protocols.solve import Solve, dyn_gradient, dyn_solve, values_and_evaluations, values_of
from dyn_numerics import MaxStepsError


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_states_and_evaluations(stepping):
    calls = 0

    def decay(t, x):
        nonlocal calls
        calls += 1
        return -2 * t * x

    x0 = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    solve = dyn_solve(decay, x0, t, tolerance=1e-10, stepping=stepping)
    assert calls == 0  # what is prepared does not work
    result = solve.run()
    assert solve.evaluations(result) == calls
    x = solve.values(result)
    assert not x.requires_grad
    torch.testing.assert_close(x, x0.detach() * torch.exp(-t.square())[:, None, None], atol=1e-9, rtol=0)


def test_arguments_and_the_floor_of_tolerances():
    """An absolute tolerance that is far above the state leaves nothing to be done."""
    x0, t = torch.full((2, 1), 1e-3, dtype=torch.float64), torch.tensor([0.0, 3.0], dtype=torch.float64)
    rate = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    counts = []
    for floor in (1e-4, 1e3):
        solve = dyn_solve(
            lambda t, x, rate: -rate * x, x0, t, tolerance=1e-6, floor=floor, args=(rate,), stepping="per_sample"
        )
        result = solve.run()
        counts.append(solve.counts(result))
        bound = 1e-6 * (1e-3 + floor)
        torch.testing.assert_close(solve.values(result)[-1], x0 * torch.exp(-3 * rate), atol=bound, rtol=0)
    assert counts[0] == {
        "steps": int(dyn_solve(lambda t, x: -2 * x, x0[1:], t, tolerance=1e-6, floor=1e-4).run().stats.n_steps)
    }
    assert counts[0]["steps"] > 4 * counts[1]["steps"]


def test_a_solve_has_the_steps_that_it_is_given():
    x0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 9.0], dtype=torch.float64)
    with pytest.raises(MaxStepsError):
        dyn_solve(lambda t, x: -x, x0, t, tolerance=1e-9, max_steps=5).run()


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 4), ("rk4", 16)])
def test_a_method_of_fixed_steps_steps_on_the_output_times(solver, evaluations):
    x0, t = torch.ones(1, dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)
    solve = dyn_solve(lambda t, x: -x, x0, t, tolerance=1.0, solver=solver)
    result = solve.run()
    assert solve.evaluations(result) == evaluations
    step = {"euler": 1 - 0.25, "rk4": 1 - 0.25 + 0.25**2 / 2 - 0.25**3 / 6 + 0.25**4 / 24}[solver]
    torch.testing.assert_close(solve.values(result)[:, 0], step ** torch.arange(5.0, dtype=torch.float64))


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
def test_a_gradient(sensitivity):
    field = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(field.weight, -0.5)

    class Timed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field = field

        def forward(self, t, x):
            return self.field(x)

    x0, t = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([0.0, 3.0], dtype=torch.float64)
    solve = dyn_gradient(Timed(), x0, t, tolerance=1e-11, loss=lambda x: x.sum(), sensitivity=sensitivity)
    expected = 2 * 3 * torch.exp(torch.tensor([-1.5], dtype=torch.float64))  # d/dw of 2 exp(3 w)
    torch.testing.assert_close(values_of(solve), expected, atol=1e-8, rtol=0)


def test_a_solve_without_values_has_none():
    with pytest.raises(ValueError, match="without values"):
        values_of(Solve(lambda: None))


def test_a_solve_is_judged_by_its_errors():
    solve = Solve(lambda: 3, lambda result: torch.tensor([result, 5.0]), lambda result: result)
    judged = solve.judged(lambda values: values - 3)
    assert values_of(judged).tolist() == [0, 2]
    assert judged.evaluations(judged.run()) == 3


def test_a_solve_without_values_has_no_errors():
    solve = Solve(lambda: None)
    assert solve.judged(torch.abs) is solve


def test_values_and_evaluations_are_of_one_solve():
    runs = []
    solve = Solve(lambda: runs.append(1) or len(runs), lambda result: torch.tensor(result), lambda result: 10 * result)
    values, evaluations = values_and_evaluations(solve)
    assert (values.item(), evaluations, len(runs)) == (1, 10, 1)
    for partial in (Solve(solve.run, solve.values), Solve(solve.run, None, solve.evaluations)):
        with pytest.raises(ValueError, match="without values or evaluations"):
            values_and_evaluations(partial)
