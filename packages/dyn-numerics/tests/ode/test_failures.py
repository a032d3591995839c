"""Solves that cannot reach their end: the right status, finite outputs before, NaN after, and never a hang."""

import math

import pytest
import torch

from dyn_numerics import FixedStep, PIDController, Status, Tsit5, odeint

ADAPTIVE = ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
ENOUGH = 4000  # evaluations: about what shrinking a step to nothing costs, a few times over
DTYPES = [torch.float64, torch.float32, torch.float16]

each_adaptive = pytest.mark.parametrize("solver", ADAPTIVE)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_directions = pytest.mark.parametrize("sign", [1, -1], ids=["forward", "reversed"])


def solve(f, t_span, x0=1.0, dtype=torch.float64, **options):
    return odeint(f, torch.tensor([x0], dtype=dtype), t_span, throw=False, **options)


def check_partial(sol, known, expected, tolerance):
    """The first `known` outputs are right, all others NaN."""
    x = sol.x[:, 0].double()
    torch.testing.assert_close(x[:known], torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0)
    assert x[known:].isnan().all()
    assert len(x) > known


@each_adaptive
@both_directions
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_blow_up(solver, sign, dtype, counted):
    """x' = x^2 from 1 ends at t = 1, as 1 / (1 - t)."""
    f = counted(lambda t, x: x**2)
    sol = solve(f, [0.0, sign * 0.5, sign * 0.9, sign * 1.5, sign * 2.0], float(sign), dtype, solver=solver)
    overflows = solver in ("vern7", "dopri8") and dtype is torch.float32  # the longer the step, the steeper its stages
    assert sol.status in ((Status.STEP_UNDERFLOW, Status.NON_FINITE) if overflows else (Status.STEP_UNDERFLOW,))
    assert sol.t_reached.item() == pytest.approx(sign, abs=3e-3)
    check_partial(sol, 3, [sign, sign * 2, sign * 10], 3e-2)
    assert f.calls < ENOUGH


@each_adaptive
@both_directions
def test_blow_up_in_float16_overflows(solver, sign, counted):
    f = counted(lambda t, x: x**2)
    sol = solve(f, [0.0, sign * 0.5, sign * 2.0], float(sign), torch.float16, solver=solver)
    assert sol.status is Status.NON_FINITE
    check_partial(sol, 2, [sign, sign * 2], 3e-2)
    assert f.calls < ENOUGH


@pytest.mark.parametrize(
    "mode", [{"solver": "rk4", "step_size": 0.01}, {"solver": "dopri5", "controller": FixedStep()}]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_blow_up_with_fixed_steps(mode, dtype, counted):
    f = counted(lambda t, x: x**2)
    sol = solve(f, torch.linspace(0, 3, 31, dtype=torch.float64), 1.0, dtype, **mode)
    assert sol.status is Status.NON_FINITE
    finite = sol.x[:, 0].isfinite()
    reached = int(finite.sum())
    assert finite[:reached].all()
    assert sol.x[reached:].isnan().all()
    assert sol.t_reached.item() == sol.t[reached - 1].item()
    assert sol.t_reached >= 0.9
    torch.testing.assert_close(sol.x[:10, 0].double(), 1 / (1 - sol.t[:10]), rtol=2e-3, atol=0)
    assert f.calls < ENOUGH


@each_adaptive
@each_dtype
def test_nan_everywhere(solver, dtype, counted):
    f = counted(lambda t, x: x * torch.nan)
    sol = solve(f, [0.0, 1.0, 2.0], dtype=dtype, solver=solver)
    assert sol.status is Status.NON_FINITE
    assert f.calls == sol.stats.n_evals == 1
    assert (sol.stats.n_steps, sol.t_reached, sol.dt_last) == (0, 0, 0)
    check_partial(sol, 1, [1], 0)


def test_nan_everywhere_with_fixed_steps(counted):
    f = counted(lambda t, x: x * torch.nan)
    sol = solve(f, [0.0, 1.0, 2.0], solver="rk4")
    assert sol.status is Status.NON_FINITE
    assert sol.t_reached == 0
    check_partial(sol, 1, [1], 0)


@each_adaptive
@each_dtype
@both_directions
@pytest.mark.parametrize("last", [0.3, 0.5])
def test_no_field_beyond_a_time(solver, dtype, sign, last, counted):
    f = counted(lambda t, x: -x * torch.where(sign * t > last, torch.nan, sign).to(x))
    sol = solve(f, [0.0, sign * 0.2, sign * 0.8, sign * 1.0], dtype=dtype, solver=solver)
    assert sol.status is Status.NON_FINITE
    assert sol.t_reached.item() == pytest.approx(sign * last, abs=2 * torch.finfo(dtype).eps)
    check_partial(sol, 2, [1, math.exp(-0.2)], 1e-2)
    assert f.calls < ENOUGH


@each_adaptive
@each_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_field_beyond_a_state(solver, dtype, bad, counted):
    """x' = x reaches 2 at t = log 2. Steps that round away there must neither creep on for ever nor reach the end."""
    f = counted(lambda t, x: torch.where(x > 2, bad, x))
    sol = solve(f, [0.0, 0.5, 1.0], dtype=dtype, solver=solver)
    assert sol.status is Status.NON_FINITE
    assert sol.t_reached.item() == pytest.approx(math.log(2), abs=0.06 if dtype == torch.float16 else 1e-3)
    check_partial(sol, 2, [1, math.exp(0.5)], 1e-2)
    assert f.calls < ENOUGH


@each_adaptive
def test_many_attempts_that_are_not_finite_are_no_failure_while_the_state_moves_on(solver, counted):
    """x = sin t stays in the domain of f, whose end every other step overshoots."""
    f = counted(lambda t, x: torch.where(x.abs() > 1.05, torch.nan, torch.cos(t) + 0 * x))
    sol = solve(f, [0.0, 3000.0], 0.0, solver=solver, rtol=1e-2, atol=1e-2)
    assert sol.status.is_success
    assert sol.stats.n_rejected > 300
    assert sol.x[-1].item() == pytest.approx(math.sin(3000), abs=0.02)


@each_adaptive
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leaving_the_domain_of_a_root(solver, dtype, counted):
    f = counted(lambda t, x: -torch.sqrt(x - 0.5) - 0.1)
    sol = solve(f, [0.0, 5.0], dtype=dtype, solver=solver)
    assert sol.status is Status.NON_FINITE
    assert f.calls < ENOUGH


def test_trial_steps_beyond_the_domain_are_only_rejected():
    """x' = -sqrt(x) from 1 touches 0 at t = 2: attempts see the root of negative numbers before that."""
    f = PIDController(first_step=1.9)
    sol = solve(lambda t, x: -torch.sqrt(x), [0.0, 1.0, 1.9], controller=f, rtol=1e-6)
    assert sol.status.is_success
    assert sol.stats.n_rejected > 0
    torch.testing.assert_close(sol.x[:, 0], torch.tensor([1, 0.25, 0.0025]).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("max_steps", [1, 7])
def test_max_steps(max_steps, growth):
    sol = solve(growth, torch.linspace(0, 10, 200, dtype=torch.float64), rtol=1e-9, max_steps=max_steps)
    assert sol.status is Status.MAX_STEPS
    assert sol.stats.n_steps == max_steps
    known = int((sol.t <= sol.t_reached).sum())
    check_partial(sol, known, growth.exact(sol.t[:known]), 1e-6)


def test_max_steps_that_just_suffice(growth):
    needed = solve(growth, [0.0, 10.0]).stats.n_steps.item()
    assert solve(growth, [0.0, 10.0], max_steps=needed).status.is_success
    assert solve(growth, [0.0, 10.0], max_steps=needed - 1).status is Status.MAX_STEPS


def test_accepted_steps_of_a_failed_solve_are_kept(growth):
    sol = solve(growth, [0.0, 10.0], save="steps", max_steps=6)
    assert len(sol.t) == len(sol.x) == sol.stats.n_accepted + 1
    assert sol.x.isfinite().all()
    assert sol.t[-1] == sol.t_reached


def test_a_seminorm_does_not_hide_what_is_not_finite():
    """The leaf that it leaves out ends at t = 0.5."""

    def f(t, x):
        return -x[0], torch.where(t > 0.5, torch.nan, x[1])

    controller = PIDController(norm=lambda error: error[0].abs().max())
    x0 = (torch.ones(1).double(), torch.ones(1).double())
    sol = odeint(f, x0, [0.0, 0.4, 1.0], controller=controller, throw=False)
    assert sol.status is Status.NON_FINITE
    assert sol.t_reached.item() == pytest.approx(0.5, abs=1e-9)
    assert sol.x[1][1].item() == pytest.approx(math.exp(0.4), rel=1e-3)


@pytest.mark.parametrize("solver", ["heun", "rk4", Tsit5(trainable=True)], ids=["heun", "rk4", "trainable tsit5"])
def test_interpolated_outputs_that_are_not_finite_are_no_success(solver):
    """The last interpolant wants the field at the end of the span, where this one has none; all before it is fine."""
    t_span = torch.linspace(0, 1, 14, dtype=torch.float64)

    def f(t, x):
        return torch.where(t < 1, 1.0, torch.inf) + 0 * x

    sol = solve(f, t_span, 0.0, solver=solver, step_size=0.25)
    assert sol.status is Status.NON_FINITE
    check_partial(sol, 10, t_span[:10], 1e-14)  # those before 0.75, where the last step starts
    assert sol.t_reached == t_span[9]


def test_an_overflow_of_one_leaf_in_its_own_dtype_is_no_success():
    x0 = {"half": torch.zeros(1, dtype=torch.float16), "double": torch.zeros(1, dtype=torch.float64)}
    sol = odeint(lambda t, x: {"half": x["half"] * 0 + 6e4, "double": x["double"]}, x0, [0.0, 1.0, 2.0], throw=False)
    assert sol.status is Status.NON_FINITE
    assert (sol.x["half"][1].item(), sol.x["double"][1].item()) == (6e4, 0)
    assert sol.x["half"][2].isnan().all()
    assert sol.x["double"][2].isnan().all()


def test_overflow_before_max_steps_is_told_as_what_it_is():
    sol = solve(lambda t, x: x**2, torch.linspace(0, 10, 101).double(), solver="euler", max_steps=90)
    assert sol.status is Status.NON_FINITE
    assert not sol.x.isinf().any()


def test_a_failed_neighbour_in_the_state_fails_the_whole():
    """Joint stepping: the state is one problem."""
    sol = odeint(lambda t, x: x**2, torch.tensor([1.0, 0.1]).double(), [0.0, 0.5, 2.0], throw=False)
    assert sol.status is Status.STEP_UNDERFLOW
    assert sol.x[2].isnan().all()
    assert sol.x[:2].isfinite().all()
