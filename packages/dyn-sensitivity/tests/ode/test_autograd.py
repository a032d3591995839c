from __future__ import annotations

import pytest
import torch
from torch import nn

import dyn_numerics
from dyn_numerics import ExplicitRungeKutta, FixedStep, PIDController, RungeKutta2, Tsit5
from dyn_numerics.ode.tableaus.explicit import DOPRI5
from dyn_sensitivity import Autograd, odeint


def oscillator(t, x, a):
    return torch.stack([x[1], -a * torch.sin(3 * x[0]) + torch.cos(t)])


@pytest.mark.parametrize("solver", ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"])
@pytest.mark.parametrize("end", [3.0, -3.0])
def test_is_the_gradient_of_the_computed_numbers_with_the_accepted_steps_held_fixed(slope_along, solver, end):
    """At a loose tolerance, where the gradient of the solution itself is another one."""
    x0 = torch.tensor([0.4, 0.2], requires_grad=True)
    a = torch.tensor(2.0, requires_grad=True)
    first = PIDController(first_step=2.0)
    options = {"solver": solver, "rtol": 1e-2, "atol": 1e-2, "controller": first}
    with torch.no_grad():
        steps = odeint(oscillator, x0, [0.0, end], args=(a,), save="steps", **options)
    assert steps.stats.n_rejected > 0
    assert 3 <= steps.stats.n_accepted <= 60

    def replayed():
        fixed = {"solver": solver, "controller": FixedStep()}
        return dyn_numerics.odeint(oscillator, x0, grid, args=(a,), **fixed).x[-1].square().sum()

    t_span = torch.tensor([0.0, end], requires_grad=True)
    grid = steps.t.clone()
    loss = odeint(oscillator, x0, t_span, args=(a,), sensitivity="autograd", **options).x[-1].square().sum()
    assert loss.item() == pytest.approx(replayed().item(), rel=1e-13)
    gradients = torch.autograd.grad(loss, [x0, a, t_span])

    directions = [torch.tensor([1.0, -0.5]), torch.tensor(0.7)]
    got = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=False))
    assert got == pytest.approx(slope_along(replayed, [x0, a], directions, 2e-4), rel=1e-9)

    # The last step ends at the last time; the others start and end where they did, moved along with the start.
    last, others = torch.zeros_like(grid), torch.ones_like(grid)
    last[-1], others[-1] = 1.0, 0.0
    assert gradients[2][1].item() == pytest.approx(slope_along(replayed, [grid], [last], 1e-4), rel=1e-8)
    assert gradients[2][0].item() == pytest.approx(slope_along(replayed, [grid], [others], 1e-4), rel=1e-8)


def test_reaches_captured_tensors(slope_along):
    a = torch.tensor([0.5, -0.3], requires_grad=True)
    b = a.exp()
    x = odeint(lambda t, x: b * x - t, torch.ones(2), [0.0, 1.0], sensitivity="autograd", rtol=1e-9, atol=1e-9).x
    (found,) = torch.autograd.grad(x[-1].sum(), a)
    rate = b.detach()
    # x(1) = exp(b) - (exp(b) - 1 - b) / b^2, and db/da = b
    slope = rate.exp() - (rate.exp() - 1) / rate**2 + 2 * (rate.exp() - 1 - rate) / rate**3
    torch.testing.assert_close(found, slope * rate, rtol=1e-7, atol=0)


SOLVERS = {
    "rk2": (lambda: RungeKutta2(0.6, trainable=True), {"step_size": 0.1}),
    "dopri5, fixed": (lambda: ExplicitRungeKutta(DOPRI5, trainable=True), {"step_size": 0.25}),
    "tsit5, fixed": (lambda: Tsit5(trainable=True), {"controller": FixedStep()}),
}


@pytest.mark.parametrize("which", SOLVERS)
def test_reaches_a_trainable_solver(slope_along, which):
    make, options = SOLVERS[which]
    solver = make()

    def loss():
        x = odeint(oscillator, torch.tensor([0.4, 0.2]), [0.0, 0.55, 1.0], args=(2.0,), solver=solver, **options).x
        return x.square().sum()

    parameters = list(solver.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    got = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert abs(got) > 1e-6
    assert got == pytest.approx(slope_along(loss, parameters, directions, 1e-4), rel=1e-6)


def test_rejected_attempts_leave_no_trace():
    """A field that is NaN beyond x = 2 rejects steps that overshoot; the gradient knows only the accepted ones."""
    x0 = torch.tensor([1.0], requires_grad=True)
    first = PIDController(first_step=3.0)
    sol = odeint(
        lambda t, x: torch.where(x < 2, torch.sqrt(2 - x), torch.nan),
        x0,
        [0.0, 1.0],
        sensitivity="autograd",
        controller=first,
        rtol=1e-8,
        atol=1e-8,
    )
    assert sol.stats.n_rejected > 0
    (found,) = torch.autograd.grad(sol.x[-1].sum(), x0)
    # sqrt(2 - x) falls linearly: x(1) = 2 - (sqrt(2 - x0) - 1/2)^2
    torch.testing.assert_close(found, torch.tensor([0.5]), rtol=1e-6, atol=0)


def test_frozen_and_unused_parameters_get_nothing():
    field = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    field["used"].bias.requires_grad_(False)
    odeint(lambda t, x: field["used"](x) + 0 * t, torch.ones(2), [0.0, 1.0]).x.sum().backward()
    assert field["used"].weight.grad.abs().max() > 0.1
    assert field["used"].bias.grad is None
    assert field["unused"].weight.grad is None


def test_repr():
    assert repr(Autograd()) == "Autograd()"
