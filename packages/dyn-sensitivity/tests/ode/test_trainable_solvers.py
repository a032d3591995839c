"""Tables, hypersolvers and controllers that are trained, under the algorithms that reach them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, ExplicitRungeKutta, Heun, HyperStepper, ReversibleRungeKutta, Verdict
from dyn_numerics.ode.tableaus.explicit import BOSH3
from dyn_sensitivity import Backsolve, odeint

EXACT = ["autograd", "checkpoint", "reversible"]


class Correction(nn.Linear):
    """A network of a hypersolver."""

    def forward(self, t, x, slope):
        return torch.tanh(super().forward(x)) * slope


class Learned(Controller):
    """Accepts everything and multiplies the step by a power of the error that it learns."""

    differentiable = True

    def __init__(self):
        super().__init__()
        self.first_step = 0.1
        self.power = nn.Parameter(torch.tensor(0.15))
        self.scale = nn.Parameter(torch.tensor(0.9))

    def judge(self, error, error_order, memory):
        error = torch.as_tensor(error, dtype=torch.float64)
        factor = self.scale * torch.exp(-self.power * torch.log(error.clamp(1e-6, 1e6)))
        return Verdict(error < float("inf"), factor, memory)


def loss(name, solver, **options):
    x0 = torch.tensor([[0.4, 0.2], [-0.3, 0.6]])
    if name == "reversible":
        solver = ReversibleRungeKutta(solver)
    x = odeint(lambda t, x: torch.cos(t) * x.sin(), x0, [0.0, 0.7, 1.5], solver=solver, sensitivity=name, **options).x
    return x[1:].square().sum()


def assert_slope(slope_along, value, module, tolerance):
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    got = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    expected = slope_along(value, parameters, directions, 1e-4)
    assert abs(expected) > 1e-5
    assert got == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("name", [*EXACT, "forward"])
def test_a_table(slope_along, name, stepping):
    table = ExplicitRungeKutta(BOSH3, trainable=True)
    assert_slope(slope_along, lambda: loss(name, table, step_size=0.4, stepping=stepping), table, 1e-7)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("name", ["autograd", "checkpoint", "forward"])
def test_a_hypersolver(slope_along, name, stepping):
    solver = HyperStepper(Heun(), Correction(2, 2))
    assert_slope(slope_along, lambda: loss(name, solver, step_size=0.4, stepping=stepping), solver.net, 1e-7)


@pytest.mark.parametrize("name", EXACT)
def test_a_controller(slope_along, name):
    controller = Learned()
    value = lambda: loss(name, ExplicitRungeKutta(BOSH3), controller=controller, rtol=1e-2, atol=1e-2)  # noqa: E731
    assert_slope(slope_along, value, controller, 1e-5)


def test_a_hypersolver_is_not_reversible():
    with pytest.raises(ValueError, match="solver: got HyperStepper with sensitivity='reversible'"):
        odeint(
            lambda t, x: x,
            torch.ones(2),
            [0.0, 1.0],
            solver=HyperStepper(Heun(), Correction(2, 2)),
            sensitivity="reversible",
        )


def test_the_adjoint_refuses_them():
    for solver in (ExplicitRungeKutta(BOSH3, trainable=True), HyperStepper(Heun(), Correction(2, 2))):
        with pytest.raises(ValueError, match=r"with the trainable solver|the structure of the state"):
            loss("adjoint", solver)
    with pytest.raises(ValueError, match="controller: got Learned"):
        loss(Backsolve(), ExplicitRungeKutta(BOSH3), controller=Learned())
