"""The solution as a function of time."""

import math
import pickle

import numpy as np
import pytest
import torch

from dyn_numerics import odeint

ADAPTIVE = ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
SOLVERS = ["rk4", *ADAPTIVE]

each_solver = pytest.mark.parametrize("solver", SOLVERS)


def dense(problem, solver="tsit5", t_span=(0.0, 4.0), x0=None, **options):
    x0 = torch.ones(1, dtype=torch.float64) if x0 is None else x0
    mode = {"step_size": 0.02} if solver == "rk4" else {"rtol": 1e-8, "atol": 1e-10}
    return odeint(problem, x0, t_span, solver=solver, save="dense", **{**mode, **options}).dense


@each_solver
@pytest.mark.parametrize("t_span", [(0.0, 4.0), (4.0, 0.0)], ids=["forward", "reversed"])
def test_value_and_derivative_anywhere(solver, t_span, growth):
    solution = dense(growth, solver, t_span)
    t = torch.linspace(0, 4, 57, dtype=torch.float64)
    expected = growth.exact(t, t_span[0])
    torch.testing.assert_close(solution(t)[:, 0], expected, rtol=3e-6, atol=0)
    torch.testing.assert_close(solution.derivative(t)[:, 0], expected * torch.cos(t), rtol=0, atol=1e-4)


@each_solver
def test_derivative_is_that_of_the_value(solver, growth):
    solution = dense(growth, solver)
    t, h = torch.tensor([0.3, 1.7, 3.9]).double(), 1e-5
    differences = (solution(t + h) - solution(t - h)) / (2 * h)
    torch.testing.assert_close(solution.derivative(t), differences, rtol=1e-6, atol=1e-7)


@each_solver
def test_continuous_with_its_derivative_at_the_steps(solver, growth):
    solution = dense(growth, solver)
    t = solution.t[1:-1]
    before, after = t - 1e-12, t + 1e-12
    torch.testing.assert_close(solution(before), solution(after), rtol=0, atol=1e-11)
    torch.testing.assert_close(solution.derivative(before), solution.derivative(after), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (0,)])
def test_shape_of_the_times_leads(shape, growth):
    solution = dense(growth, x0=torch.ones(2, 3).double())
    t = torch.full(shape, 0.5).double()
    assert solution(t).shape == (*shape, 2, 3)
    assert solution.derivative(t).shape == (*shape, 2, 3)
    assert torch.equal(solution(t), solution(0.5).expand(*shape, 2, 3))


def test_pytrees_and_dtypes():
    x0 = {"z": torch.ones(2, dtype=torch.complex64), "x": torch.ones(1, dtype=torch.float64)}
    solution = dense(lambda t, x: {"z": 1j * x["z"], "x": -x["x"]}, t_span=(0.0, 1.0), x0=x0)
    value, slope = solution(0.5), solution.derivative(torch.tensor([0.5]))
    assert (
        (value["z"].dtype, value["x"].dtype) == (slope["z"].dtype, slope["x"].dtype) == (torch.complex64, torch.float64)
    )
    assert value["z"][0].item() == pytest.approx(complex(math.cos(0.5), math.sin(0.5)), abs=1e-6)
    assert slope["x"][0, 0].item() == pytest.approx(-math.exp(-0.5), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
def test_single_tensors_keep_their_dtype(dtype, growth):
    solution = dense(growth, x0=torch.ones(2, dtype=dtype), rtol=1e-2)
    assert solution(0.3).dtype == solution.derivative(0.3).dtype == dtype


@pytest.mark.parametrize("t", [-1e-6, 4.000001, math.nan, math.inf])
@pytest.mark.parametrize("t_span", [(0.0, 4.0), (4.0, 0.0)], ids=["forward", "reversed"])
def test_outside_the_span_is_refused(t, t_span, growth):
    solution = dense(growth, t_span=t_span)
    for times in (t, torch.tensor([1.0, t, 2.0]).double()):
        with pytest.raises(ValueError, match=r"t: got times outside the solved span, expected \[0.0, 4.0\]"):
            solution(times)
        with pytest.raises(ValueError, match="outside the solved span"):
            solution.derivative(times)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("t_span", [(0.1, 0.7), (0.7, 0.1)])
def test_the_returned_times_are_inside_whatever_their_dtype(dtype, t_span, growth):
    """0.1 in float32 is a little more than 0.1 in float64."""
    sol = odeint(growth, torch.ones(1, dtype=dtype), t_span, save="dense")
    rounding = 100 * torch.finfo(torch.float32).eps + 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(sol.dense(sol.t), sol.x, rtol=0, atol=rounding)


def test_ends_at_the_last_accepted_step_of_a_failed_solve():
    sol = odeint(lambda t, x: x**2, torch.ones(1).double(), [0.0, 2.0], save="dense", throw=False)
    assert sol.dense(0.5).item() == pytest.approx(2, rel=1e-2)
    assert sol.dense.t[-1] == sol.t_reached
    with pytest.raises(ValueError, match="outside the solved span"):
        sol.dense(1.5)


def test_gradients_to_the_state_and_to_the_times(growth):
    x0 = torch.ones(1).double().requires_grad_()
    t = torch.tensor([0.5, 1.0]).double().requires_grad_()
    solution = dense(growth, x0=x0)
    x = solution(t)
    slope, by_time = torch.autograd.grad(x.sum(), (x0, t))
    assert slope.item() == pytest.approx(growth.exact(t).sum().item(), rel=1e-6)
    torch.testing.assert_close(by_time, solution.derivative(t).detach()[:, 0], rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # by torch, of its own way to load a pytree's structure
def test_pickles(growth):
    solution = dense(growth)
    assert torch.equal(pickle.loads(pickle.dumps(solution))(1.3), solution(1.3))


@pytest.mark.parametrize("t", [[0.25, 0.5], (0.25, 0.5), np.array([0.25, 0.5])], ids=["list", "tuple", "array"])
def test_takes_any_sequence_of_times(t, growth):
    dense = odeint(growth, torch.ones(3).double(), [0.0, 1.0], save="dense").dense
    assert torch.equal(dense(t), dense(torch.tensor([0.25, 0.5], dtype=torch.float64)))
    assert dense.derivative(t).shape == (2, 3)


def test_outside_the_span_is_nan_where_nobody_can_read_it(growth):
    def at(x0, t):
        return odeint(growth, x0, [0.0, 1.0], rtol=1e-6, save="dense").dense(t)

    x0, t = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0.5, 5.0], dtype=torch.float64)
    found = torch.func.vmap(at)(x0, t)
    assert found[0].item() == pytest.approx(math.exp(math.sin(0.5)), rel=1e-5)
    assert found[1].isnan().all()
