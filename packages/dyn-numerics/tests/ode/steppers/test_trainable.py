"""Trainable tables: what their parameters are, what they keep, and their gradients."""

import pytest
import torch

from dyn_numerics import (
    Bosh3,
    ButcherTableau,
    Dopri5,
    Dopri8,
    Euler,
    ExplicitRungeKutta,
    FixedStep,
    Heun,
    Midpoint,
    Ralston,
    RungeKutta2,
    RungeKutta4,
    Tsit5,
    Vern7,
    odeint,
)

STEPPERS = [Euler, Midpoint, Heun, Ralston, RungeKutta4, Bosh3, Dopri5, Tsit5, Vern7, Dopri8]
GRID = torch.tensor([0.0, 0.2, 0.5, 1.1], dtype=torch.float64)

each_stepper = pytest.mark.parametrize("stepper", STEPPERS, ids=lambda stepper: stepper.__name__)


def field(t, x):
    return torch.sin(3 * t) - x**2


def loss(method, **options):
    x0 = torch.tensor([1.0, 0.3], dtype=torch.float64)
    return odeint(field, x0, GRID, solver=method, **options).x.square().sum()


@each_stepper
def test_untrained_it_is_the_method_itself(stepper):
    fixed = {"controller": FixedStep()}
    trainable, plain = loss(stepper(trainable=True), **fixed), loss(stepper(), **fixed)
    assert trainable.item() == pytest.approx(plain.item(), rel=1e-14)


@each_stepper
def test_parameters(stepper):
    method = stepper(trainable=True)
    s = method.tableau.stages
    shapes = {name: tuple(parameter.shape) for name, parameter in method.named_parameters()}
    assert shapes == {"a_entries": (s * (s - 1) // 2,), "b_entries": (s,)}
    assert all(parameter.dtype == torch.float64 for parameter in method.parameters())


@each_stepper
def test_weights_keep_their_sum_and_a_stays_strictly_lower(stepper):
    method = stepper(trainable=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    a, b = method.weights()
    assert b.sum().item() == pytest.approx(1, abs=1e-14)
    assert torch.equal(a, a.tril(-1))
    one_slope = odeint(
        lambda t, x: torch.ones_like(x), torch.zeros(1).double(), GRID, solver=method, controller=FixedStep()
    )
    torch.testing.assert_close(one_slope.x[:, 0], GRID, rtol=0, atol=1e-14)


@each_stepper
def test_nodes_follow_a(stepper):
    method = stepper(trainable=True)
    if method.tableau.stages == 1:
        assert method.a_entries.numel() == 0
        return
    with torch.no_grad():
        method.a_entries.mul_(0.9)
    times = []

    def f(t, x):
        times.append(t.item())
        return x

    method.step(f, 2.0, 3.0, torch.ones(1, dtype=torch.float64), None)
    assert times == pytest.approx([2 + 0.9 * float(c) for c in method.tableau.c], abs=1e-14)


@pytest.mark.parametrize("stepper", [Bosh3, Dopri5, Tsit5, Vern7, Dopri8], ids=lambda stepper: stepper.__name__)
def test_error_weights_follow_b(stepper):
    method = stepper(trainable=True)
    with torch.no_grad():
        method.b_entries[0] += 0.1
    k = torch.eye(method.tableau.stages, dtype=torch.float64)
    answers = iter(k)
    step = method.step(lambda t, x: next(answers), 0.0, 1.0, torch.zeros(len(k), dtype=torch.float64), None)
    b_hat = torch.tensor([float(w) for w in method.tableau.b_hat], dtype=torch.float64)
    torch.testing.assert_close(step.error, method.weights()[1] - b_hat, rtol=0, atol=1e-14)
    torch.testing.assert_close(step.x, method.weights()[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("options", [{"controller": FixedStep()}, {"step_size": 0.3}], ids=["grid", "interpolated"])
@pytest.mark.parametrize("stepper", STEPPERS[1:], ids=lambda stepper: stepper.__name__)  # nothing of Euler's is free
def test_gradient_of_every_entry_against_finite_differences(stepper, options):
    method = stepper(trainable=True)
    loss(method, **options).backward()
    h = 1e-4
    for parameter in method.parameters():
        differences = torch.empty_like(parameter)
        for i in range(parameter.numel()):
            values = []
            for steps in (-2, -1, 1, 2):
                with torch.no_grad():
                    parameter[i] += steps * h
                    values.append(loss(method, **options))
                    parameter[i] -= steps * h
            differences[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        torch.testing.assert_close(parameter.grad, differences, rtol=1e-7, atol=1e-8)
    assert method.a_entries.grad.abs().max() > 1e-3
    assert method.b_entries.grad.abs().max() > 1e-3


@pytest.mark.parametrize("stepper", [Bosh3, Dopri5, Tsit5, Vern7, Dopri8], ids=lambda stepper: stepper.__name__)
def test_gradients_of_an_adaptive_solve(stepper):
    """Those of the accepted steps, which a solve on a grid of these steps repeats."""
    adaptive, repeated = stepper(trainable=True), stepper(trainable=True)
    x0 = torch.tensor([1.0, 0.3], dtype=torch.float64)
    options = {"rtol": 1e-5, "atol": 1e-7}
    grid = odeint(field, x0, GRID, solver=adaptive, save="steps", **options).t
    odeint(field, x0, GRID[[0, -1]], solver=adaptive, **options).x[-1].sum().backward()
    odeint(field, x0, grid, solver=repeated, controller=FixedStep()).x[-1].sum().backward()
    assert len(grid) > 3
    for mine, other in zip(adaptive.parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-12)
        assert mine.grad.abs().max() > 0


@pytest.mark.parametrize("stepper", [RungeKutta4, Tsit5], ids=lambda stepper: stepper.__name__)
def test_the_same_in_training_and_after_it(stepper):
    method = stepper(trainable=True)
    with torch.no_grad():
        method.a_entries[-1] += 0.01
    options = {"controller": FixedStep(), "save": "dense"}

    def run():
        sol = odeint(field, torch.ones(1, dtype=torch.float64), GRID, solver=method, **options)
        return sol.x, sol.dense(0.7), sol.stats.n_evals

    training = run()
    method.eval()
    with torch.no_grad():
        evaluating = run()
    method.requires_grad_(False)
    frozen = run()
    for first, second, third in zip(training, evaluating, frozen, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_a_changed_method_evaluates_its_last_stage_anew():
    """Neither the reuse of the last stage nor the native interpolant belong to a table that may have changed."""
    method = Dopri5(trainable=True)
    assert method.tableau.reuses_last_stage
    assert not method.reuses_last_stage
    sol = odeint(field, torch.ones(1, dtype=torch.float64), GRID, solver=method, controller=FixedStep())
    assert sol.stats.n_evals == 7 * 3
    with torch.no_grad():
        method.b_entries[0] += 0.05
    sol = odeint(field, torch.ones(1).double(), [0.0, 0.5], solver=method, controller=FixedStep(), save="dense")
    # The derivative at the end is the field at the new state, not the last stage of the unchanged table
    assert sol.dense.derivative(0.5).item() == pytest.approx(
        field(torch.tensor(0.5).double(), sol.x[-1]).item(), abs=1e-13
    )


def test_training_reaches_a_method_from_a_wrong_start():
    """A two-stage method of order 1 learns to match Heun's on one problem."""
    target = loss(Heun()).detach()
    wrong = ExplicitRungeKutta(Heun.table, trainable=True)
    with torch.no_grad():
        wrong.b_entries.copy_(torch.tensor([0.9, 0.1]))
    assert (loss(wrong) - target).abs() > 0.1
    optimizer = torch.optim.LBFGS(wrong.parameters(), line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        distance = (loss(wrong) - target).square()
        distance.backward()
        return distance

    for _ in range(3):
        optimizer.step(closure)
    assert (loss(wrong) - target).abs() < 1e-4


@each_stepper
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_effective_order_of_what_is_untrained_is_that_of_the_table(stepper, dtype):
    order = stepper.table.order
    assert stepper().effective_order() == order
    assert stepper(trainable=True).to(dtype).effective_order() == order


@pytest.mark.parametrize("stepper", STEPPERS[1:], ids=lambda stepper: stepper.__name__)
@pytest.mark.parametrize(("change", "tolerance"), [(1e-5, None), (1e-9, 1e-10), (0.1, None)])
def test_training_costs_the_order(stepper, change, tolerance):
    method = stepper(trainable=True)
    with torch.no_grad():
        method.b_entries[0] += change
        method.b_entries[-1] -= change
    assert method.effective_order(tolerance) == 1
    assert method.order == stepper.table.order


def test_the_effective_order_is_the_largest_whose_conditions_hold():
    """Of the classical method with a_43 = 1 + d the first condition that fails has three nodes: b a c = 1/6 + d / 12."""
    method = RungeKutta4(trainable=True)
    with torch.no_grad():
        method.a_entries[3:6] += torch.tensor([-1e-3, 0, 1e-3])  # c stays
    assert method.effective_order() == 2
    assert method.effective_order(tolerance=0.01) == 4
    kutta = Heun(trainable=True)
    with torch.no_grad():  # any two-stage method with b c = 1/2 has order 2, whatever it started from
        kutta.a_entries.fill_(0.75)
        kutta.b_entries.copy_(torch.tensor([1 / 3, 2 / 3]))
    assert kutta.effective_order() == 2


def test_an_order_above_the_table_s():
    """Euler's table with a second stage of no weight becomes the midpoint method's."""
    table = ButcherTableau(name="idle", order=1, a=[[], [1]], b=[1, 0], source="for this test")
    method = ExplicitRungeKutta(table, trainable=True)
    assert method.effective_order() == 1
    with torch.no_grad():
        method.a_entries.fill_(0.5)
        method.b_entries.copy_(torch.tensor([0.0, 1.0]))
    assert (method.order, method.effective_order()) == (1, 2)


@pytest.mark.parametrize("alpha", [-0.7, 0.5, 2 / 3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_family_of_order_two_stays_in_it(alpha, dtype):
    method = RungeKutta2(0.5, trainable=True).to(dtype)
    with torch.no_grad():
        method.alpha.fill_(alpha)
    assert method.effective_order() == 2


def test_weights_that_are_not_finite_have_no_order():
    method = Heun(trainable=True)
    with torch.no_grad():
        method.b_entries.fill_(torch.nan)
    assert method.effective_order() == 0


@pytest.mark.parametrize("tolerance", [0.0, -1e-10, 1.0, float("nan")])
def test_a_tolerance_that_is_none(tolerance):
    with pytest.raises(ValueError, match=r"tolerance: got .*, expected a number in \(0, 1\)"):
        Heun().effective_order(tolerance)
