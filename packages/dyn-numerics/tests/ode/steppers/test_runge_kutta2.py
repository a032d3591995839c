"""The one-parameter family of order 2."""

import copy
import math
import pickle

import pytest
import torch

from dyn_numerics import Heun, Midpoint, Ralston, RungeKutta2, odeint

GRID = torch.tensor([0.0, 0.1, 0.3, 0.4, 0.8, 1.0], dtype=torch.float64)


def solve(problem, solver, t_span=GRID):
    return odeint(problem, torch.tensor([1.0, -0.5], dtype=torch.float64), t_span, solver=solver).x


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize(("alpha", "named"), [(0.5, Midpoint), (2 / 3, Ralston), (1.0, Heun)])
def test_named_members(alpha, named, trainable, growth):
    found = solve(growth, RungeKutta2(alpha, trainable))
    torch.testing.assert_close(found, solve(growth, named()), rtol=1e-15, atol=1e-15)
    others = [other() for other in (Midpoint, Ralston, Heun) if other is not named]
    assert all((found - solve(growth, other)).abs().max() > 1e-5 for other in others)


@pytest.mark.parametrize("alpha", [0.55, 0.85, 1.0, 1.3, -0.7])
def test_order_is_two_whatever_alpha_is(alpha, growth, fitted_order):
    trained = RungeKutta2(0.5, trainable=True)
    with torch.no_grad():
        trained.alpha.fill_(alpha)

    def error(steps):
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        with torch.no_grad():
            return (solve(growth, trained, t)[:, 0] - growth.exact(t)).abs().max().item()

    assert fitted_order(error, most_steps=200) == pytest.approx(2, abs=0.2)


def test_gradient_to_alpha_against_finite_differences(growth):
    method = RungeKutta2(0.7, trainable=True)
    solve(growth, method).square().sum().backward()

    def loss(alpha):
        return solve(growth, RungeKutta2(alpha)).square().sum().item()

    h = 1e-5
    assert method.alpha.grad.item() == pytest.approx((loss(0.7 + h) - loss(0.7 - h)) / (2 * h), rel=1e-7)


def test_alpha_is_the_only_parameter():
    method = RungeKutta2(0.5, trainable=True)
    assert [name for name, _ in method.named_parameters()] == ["alpha"]
    assert list(method.state_dict()) == ["alpha"]
    assert not list(RungeKutta2(0.5).parameters())
    assert RungeKutta2(0.5).alpha == 0.5
    assert method.alpha.dtype == torch.float64


def test_trained_alpha_survives_copies(growth):
    trained = RungeKutta2(0.5, trainable=True)
    with torch.no_grad():
        trained.alpha.fill_(0.9)
    expected = solve(growth, RungeKutta2(0.9))
    loaded = RungeKutta2(0.5, trainable=True)
    loaded.load_state_dict(trained.state_dict())
    for other in (trained, loaded, copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        torch.testing.assert_close(solve(growth, other), expected, rtol=1e-15, atol=1e-15)


def test_training_finds_the_alpha_that_made_the_data(growth):
    data = solve(growth, Heun())
    method = RungeKutta2(0.5, trainable=True)
    optimizer = torch.optim.LBFGS(
        method.parameters(), line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )

    def closure():
        optimizer.zero_grad()
        loss = (solve(growth, method) - data).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert method.alpha.item() == pytest.approx(1, abs=1e-6)


def test_moving_a_method_changes_nothing(growth):
    method = RungeKutta2(1 / 3)
    moved = copy.deepcopy(method.half())
    assert torch.equal(solve(growth, moved), solve(growth, RungeKutta2(1 / 3)))


def test_prints_the_alpha_of_now():
    method = RungeKutta2(0.5, trainable=True)
    with torch.no_grad():
        method.alpha.fill_(0.75)
    assert (repr(method), repr(RungeKutta2(0.5))) == (
        "RungeKutta2(alpha=0.75, trainable=True)",
        "RungeKutta2(alpha=0.5)",
    )


@pytest.mark.parametrize("alpha", ["0.5", True, torch.tensor(0.5)])
def test_alpha_that_is_no_number(alpha):
    with pytest.raises(TypeError, match=f"alpha: got a {type(alpha).__name__}, expected a number"):
        RungeKutta2(alpha)


@pytest.mark.parametrize("alpha", [0, math.nan, math.inf])
def test_alpha_without_a_method(alpha):
    with pytest.raises(ValueError, match=f"alpha: got {alpha}, expected a finite number other than 0"):
        RungeKutta2(alpha)
