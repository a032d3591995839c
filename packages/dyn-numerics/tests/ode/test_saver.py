"""What a solve keeps, besides its states at `t_span`."""

import pytest
import torch

from dyn_numerics import odeint

T_SPAN = torch.linspace(0, 4, 6, dtype=torch.float64)
SOLVERS = ["heun", "rk4", "bosh3", "dopri5", "tsit5", "vern7", "dopri8"]

each_solver = pytest.mark.parametrize("solver", SOLVERS)
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])


def solve(problem, solver, reverse=False, **options):
    t_span = T_SPAN.flip(0) if reverse else T_SPAN
    return odeint(problem, torch.tensor([1.0, 2.0]).double(), t_span, solver=solver, rtol=1e-7, atol=1e-9, **options)


@each_solver
@both_directions
def test_steps_are_the_accepted_ones(solver, reverse, growth):
    sol = solve(growth, solver, reverse, save="steps")
    outputs = solve(growth, solver, reverse)
    assert len(sol.t) == len(sol.x) == sol.stats.n_accepted + 1
    assert sol.t[0] == outputs.t[0]
    assert sol.t[-1] == outputs.t[-1]
    assert torch.equal(sol.x[0], torch.tensor([1.0, 2.0]).double())
    torch.testing.assert_close(sol.x[-1], outputs.x[-1], rtol=0, atol=0)
    if solver not in ("heun", "rk4"):
        t0 = sol.t[0].item()
        torch.testing.assert_close(sol.x[:, 0], growth.exact(sol.t, t0), rtol=1e-5, atol=0)


@each_solver
@both_directions
def test_dense_agrees_with_the_outputs_and_the_steps(solver, reverse, growth):
    sol, steps = (solve(growth, solver, reverse, save=save) for save in ("dense", "steps"))
    assert torch.equal(sol.x, solve(growth, solver, reverse).x)
    rounding = 1e-12 if solver == "vern7" else 1e-13  # of a polynomial with coefficients of up to a thousand
    torch.testing.assert_close(sol.dense(sol.t), sol.x, rtol=rounding, atol=rounding)
    torch.testing.assert_close(sol.dense.t, steps.t, rtol=0, atol=0)
    torch.testing.assert_close(sol.dense(steps.t), steps.x, rtol=rounding, atol=rounding)


def test_dense_is_none_unless_asked_for(growth):
    assert solve(growth, "tsit5").dense is None
    assert solve(growth, "tsit5", save="steps").dense is None


@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
def test_what_is_kept_does_not_change_the_steps(save, growth):
    stats = solve(growth, "tsit5", save=save).stats
    expected = solve(growth, "tsit5").stats
    assert (stats.n_steps, stats.n_evals) == (expected.n_steps, expected.n_evals)
