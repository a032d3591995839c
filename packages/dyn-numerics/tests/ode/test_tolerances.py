"""Tolerances: numbers and tensors, and what the error is measured against."""

import math

import pytest
import torch

from dyn_numerics import odeint
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.pytree_state import StateLayout


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def norm(state, rtol, atol, custom=None):
    return ErrorNorm(rtol, atol, StateLayout(state, "x0"), custom)


def test_norm_of_a_step_by_hand():
    measure = norm(vector(0, 0), rtol=0.1, atol=0.01)
    # Scales: 0.01 + 0.1 max(|x0|, |x1|) = 0.31 and 0.51
    expected = pytest.approx(math.sqrt((0.2**2 + 0.1**2) / 2), rel=1e-14)
    assert measure.of_step(vector(0.062, -0.051), vector(3, -5), vector(-1, 4)) == expected
    assert measure.of_step(vector(0.062, -0.051), vector(-1, 4), vector(3, -5)) == expected


def test_norm_of_a_vector_by_hand():
    measure = norm(vector(0, 0), rtol=vector(0.1, 0.2), atol=vector(1.0, 0.0) + 1e-300)
    assert measure.at(vector(10, -10), vector(2, 6)) == pytest.approx(math.sqrt((1 + 9) / 2), rel=1e-14)


def test_half_the_state_is_that_of_the_loosest_tolerance():
    assert norm(vector(0, 0), rtol=1e-3, atol=1e-6).of_half_the_state == 500
    assert norm(vector(0, 0), rtol=vector(1e-3, 1e-6), atol=1e-6).of_half_the_state == 500


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["error", "x1"])
@pytest.mark.parametrize("custom", [None, lambda error: error[:1].abs().max()], ids=["rms", "seminorm"])
def test_what_is_not_finite_has_an_infinite_error(bad, where, custom):
    """Even where a seminorm looks away."""
    error, x1 = vector(0, 0), vector(1, 1)
    (error if where == "error" else x1)[1] = bad
    measure = norm(x1, 1e-3, 1e-6, custom)
    assert measure.read(measure.of_step(error, vector(1, 1), x1)) == math.inf
    assert measure.of_step(vector(0, 0), vector(1, 1), vector(1, 1)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype):
    """1e-6 is far below the smallest number of float16 that divides well."""
    x = torch.zeros(3, dtype=dtype)
    assert norm(x, 1e-3, 1e-6).at(x, torch.full((3,), 1e-3, dtype=dtype)) == pytest.approx(1000, rel=1e-2)


def test_a_half_leaf_of_a_pytree_reaches_a_norm_in_float32():
    seen = []
    measure = norm((torch.zeros(2, dtype=torch.float16),), 1e-3, 1e-6, lambda e: seen.append(e[0].dtype) or e[0].norm())
    measure.at(torch.zeros(2), torch.ones(2))
    assert seen == [torch.float32]


def test_an_absolute_tolerance_below_what_the_dtype_holds(growth):
    """The only way to ask for relative accuracy alone: atol = 0 is refused, for a state may start at 0."""
    x0 = torch.tensor([1.0, 0.0])
    for atol in (1e-50, torch.tensor([1e-50, 1e-60], dtype=torch.float64)):
        sol = odeint(growth, x0, [0.0, 1.0], rtol=1e-5, atol=atol)
        assert sol.status.is_success
        assert sol.x[-1, 0].item() == pytest.approx(math.exp(math.sin(1)), rel=1e-4)


def growing_at_two_rates(t, x):
    return torch.stack([torch.cos(t) + 0 * x[0], 1e3 * torch.cos(t) + 0 * x[1]])


@pytest.mark.parametrize("solver", ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"])
def test_error_follows_the_tolerance(solver, growth):
    errors = []
    for tolerance in (1e-4, 1e-7, 1e-10):
        t_span = torch.linspace(0, 10, 101, dtype=torch.float64)
        t, x = odeint(growth, torch.ones(1).double(), t_span, solver=solver, rtol=tolerance, atol=tolerance)
        exact = growth.exact(t)
        errors.append(((x[:, 0] - exact).abs() / (1 + exact.abs())).max().item())  # in what both tolerances allow
        assert errors[-1] < 20 * tolerance
    assert errors[0] > 30 * errors[1] > 900 * errors[2]


def test_tensors_that_repeat_a_number_change_nothing(growth):
    x0 = torch.ones(2, 3).double()
    expected = odeint(growth, x0, [0.0, 5.0], rtol=1e-5, atol=1e-7, save="steps")
    for shape in ((), (1,), (3,), (2, 1), (2, 3)):
        rtol, atol = torch.full(shape, 1e-5).double(), torch.full(shape, 1e-7).double()
        sol = odeint(growth, x0, [0.0, 5.0], rtol=rtol, atol=atol, save="steps")
        torch.testing.assert_close(sol.t, expected.t, rtol=1e-6, atol=0)


def test_each_element_has_its_own_tolerance():
    loose = odeint(growing_at_two_rates, vector(0, 0), [0.0, 10.0], rtol=1e-12, atol=vector(1e-6, 1e6)).stats.n_steps
    tight = odeint(growing_at_two_rates, vector(0, 0), [0.0, 10.0], rtol=1e-12, atol=vector(1e-6, 1e-6)).stats.n_steps
    only_first = odeint(lambda t, x: torch.cos(t) + 0 * x, vector(0), [0.0, 10.0], rtol=1e-12, atol=1e-6).stats.n_steps
    assert tight > 2 * loose
    assert loose <= only_first


def test_relative_tolerances_per_element_of_a_pytree(growth):
    """A tolerance broadcasts against every leaf."""
    x0 = {"a": torch.ones(4, 2).double(), "b": torch.ones(2).double()}

    def f(t, x):
        return {name: growth(t, leaf) for name, leaf in x.items()}

    sol = odeint(f, x0, [0.0, 5.0], rtol=vector(1e-9, 1e-3), atol=1e-12)
    assert sol.x["a"][-1, 0, 0].item() == pytest.approx(math.exp(math.sin(5)), rel=1e-7)
    loose = odeint(f, x0, [0.0, 5.0], rtol=1e-3, atol=1e-12)
    assert sol.stats.n_steps > 2 * loose.stats.n_steps


def test_complex_state_with_tensor_tolerances():
    x0 = torch.tensor([1.0 + 0j, 1j], dtype=torch.complex128)
    x = odeint(lambda t, x: 1j * x, x0, [0.0, 1.0], rtol=vector(1e-9, 1e-9), atol=1e-12).x
    torch.testing.assert_close(x[-1], x0 * complex(math.cos(1), math.sin(1)), rtol=1e-7, atol=0)


def test_tolerances_carry_no_gradient(growth):
    rtol = torch.tensor(1e-5).double().requires_grad_()
    x = odeint(growth, torch.ones(1).double(), [0.0, 1.0], rtol=rtol).x
    assert not x.requires_grad
