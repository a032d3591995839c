"""Fixed steps of a given size: where they land and what lies between them."""

import math

import pytest
import torch

from dyn_numerics import FixedStep, odeint

SOLVERS = ["euler", "midpoint", "heun", "ralston", "rk4", "bosh3", "dopri5", "tsit5", "vern7", "dopri8"]

each_solver = pytest.mark.parametrize("solver", SOLVERS)


def steps(t_span, step_size, solver="rk4"):
    return odeint(
        lambda t, x: 0 * x, torch.zeros(1).double(), t_span, solver=solver, step_size=step_size, save="steps"
    ).t


@each_solver
@pytest.mark.parametrize("sign", [1, -1])
def test_grid(sign, solver):
    grid = steps([0.5, 0.5 + sign * 0.7], 0.25, solver)
    assert grid.tolist() == [0.5, 0.5 + sign * 0.25, 0.5 + sign * 0.5, 0.5 + sign * 0.7]


@pytest.mark.parametrize(
    ("t_span", "step_size", "count"), [([0, 1], 0.1, 10), ([0, 0.3], 0.1, 3), ([0.0, 1e6], 0.1e6, 10)]
)
def test_sizes_that_divide_the_span_up_to_rounding_leave_no_sliver(t_span, step_size, count):
    grid = steps(t_span, step_size)
    assert len(grid) == count + 1
    assert grid[-1].item() == t_span[-1]
    assert grid.diff().min() > 0.99 * step_size


def test_longer_than_the_span_is_one_step():
    assert steps([0.0, 1.0], 5.0).tolist() == [0, 1]


@each_solver
def test_outputs_do_not_move_the_steps(solver, growth):
    """The last state is the same whatever lies in between."""
    x0 = torch.ones(1).double()
    ends, many = (
        odeint(growth, x0, t_span, solver=solver, step_size=0.1).x[-1]
        for t_span in ([0.0, 1.0], [0.0, 0.13, 0.5, 0.99, 1.0])
    )
    assert torch.equal(ends, many)


@each_solver
def test_outputs_are_interpolated(solver, growth):
    """As the dense solution is, whose order is measured elsewhere."""
    t_span = torch.tensor([0.0, 0.03, 0.5, 0.77, 1.0]).double()
    x0 = torch.ones(1).double()
    sol = odeint(growth, x0, t_span, solver=solver, step_size=0.1, save="dense")
    torch.testing.assert_close(sol.dense(t_span), sol.x, rtol=1e-14, atol=1e-14)
    error = 5e-2 if solver == "euler" else 2e-3
    torch.testing.assert_close(sol.x[:, 0], growth.exact(t_span), rtol=error, atol=0)
    between = odeint(growth, x0, [0.0, 0.1], solver=solver, step_size=0.1).x[-1]
    assert (sol.x[1] - between).abs() > 1e-3  # not simply the nearest step


@each_solver
def test_an_output_on_the_grid_is_the_state_there(solver, growth):
    x0 = torch.ones(1).double()
    grid = odeint(growth, x0, [0.0, 0.25, 0.5, 0.75, 1.0], solver=solver, step_size=0.25, save="steps").x
    found = odeint(growth, x0, [0.0, 0.1, 0.5, 1.0], solver=solver, step_size=0.25).x
    torch.testing.assert_close(found[2], grid[2], rtol=2e-14, atol=0)  # a polynomial of up to 13 slopes at its end
    assert torch.equal(found[3], grid[4])


def test_euler_by_hand():
    x = odeint(lambda t, x: t * x, torch.ones(1).double(), [0.0, 1.0], solver="euler", step_size=0.4).x[-1]
    assert x.item() == pytest.approx((1 + 0.4 * 0.4) * (1 + 0.2 * 0.8), rel=1e-15)


def test_adaptive_methods_ignore_their_error_then(growth):
    sol = odeint(growth, torch.ones(1).double(), [0.0, 10.0], solver="tsit5", step_size=2.5, rtol=1e-12)
    assert (sol.stats.n_accepted, sol.stats.n_rejected) == (4, 0)
    assert sol.x[-1].item() != pytest.approx(math.exp(math.sin(10)), rel=1e-6)


def test_max_steps_bounds_a_grid_that_has_no_room(growth):
    sol = odeint(growth, torch.ones(1).double(), [0.0, 1.0], solver="rk4", step_size=1e-10, max_steps=5, throw=False)
    assert sol.status.name == "MAX_STEPS"
    assert sol.t_reached.item() == pytest.approx(5e-10, rel=1e-12)


def test_max_steps_also_bounds_fixed_steps(growth):
    sol = odeint(growth, torch.ones(1).double(), [0.0, 1.0], solver="rk4", step_size=0.1, max_steps=10)
    assert sol.status.is_success
    cut = odeint(growth, torch.ones(1).double(), [0.0, 1.0], solver="rk4", step_size=0.1, max_steps=9, throw=False)
    assert cut.status.name == "MAX_STEPS"
    assert cut.t_reached.item() == pytest.approx(0.9)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("grad", [False, True])
def test_steps_between_the_times_to_land_on(stepping, grad, growth):
    """Fixed steps with a greatest one: several of them to every output."""
    controller = FixedStep()
    controller.max_step = 0.1
    x0 = torch.ones(2, 1, dtype=torch.float64, requires_grad=grad)
    t = torch.tensor([0.0, 1.0, 2.0, 2.5], dtype=torch.float64)
    sol = odeint(growth, x0, t, solver="rk4", controller=controller, stepping=stepping)
    assert sol.stats.n_steps.max() == 25
    torch.testing.assert_close(sol.x[:, 0, 0], growth.exact(t), rtol=1e-5, atol=0)
