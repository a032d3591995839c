"""First and second derivatives of the exact algorithms against differences, in training and in evaluation mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from dyn_numerics import ExplicitRungeKutta, ReversibleRungeKutta
from dyn_numerics.ode.tableaus.explicit import BOSH3
from dyn_sensitivity import odeint
from dyn_sensitivity.ode.odeint import ALGORITHMS, algorithm

EXACT = [name for name in ALGORITHMS if algorithm(name).exact]
TWICE = ["autograd", "checkpoint", "reversible"]
MODES = {"train": True, "eval": False}


class Field(nn.Module):
    """Has every module in it that tells training from evaluation and is no other function in it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Dropout(0.0))

    def forward(self, t, x, a):
        return self.net(x) * a + torch.sin(2 * t) * x


def problem(name, training):
    """A solve as a function of a state, an argument, times, and parameters of field and table; and where to check it."""
    table = ExplicitRungeKutta(BOSH3, trainable=True)
    field, solver = Field(), ReversibleRungeKutta(table) if name == "reversible" else table
    field.train(training)
    solver.train(training)
    weights = [field.net[0].weight, *solver.parameters()]

    def solve(x0, a, t_span, *parameters):
        options = {"solver": solver, "step_size": 0.4, "sensitivity": name}
        return odeint(field, x0, t_span, args=(a,), **options).x[1:]

    start = [torch.randn(1, 2), torch.randn(2), torch.tensor([0.1, 0.4, 1.0])]
    return solve, [*(value.requires_grad_() for value in start), *weights]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", EXACT)
def test_first_derivatives(name, mode):
    solve, inputs = problem(name, MODES[mode])
    assert gradcheck(solve, inputs, eps=1e-5, atol=1e-7, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives(name, mode):
    solve, inputs = problem(name, MODES[mode])
    assert gradgradcheck(solve, inputs[:3], eps=1e-5, atol=1e-7, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in TWICE])
def test_others_refuse_second_derivatives(name):
    x0 = torch.randn(2, requires_grad=True)
    x = odeint(lambda t, x: -x * x.sin(), x0, [0.0, 1.0], sensitivity=name).x[-1]
    (gradient,) = torch.autograd.grad(x.sum(), x0, create_graph=True)
    with pytest.raises(RuntimeError, match=f"sensitivity='{name}': its gradient was differentiated again"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_training_and_evaluation_have_one_gradient(name):
    found = []
    for training in MODES.values():
        torch.manual_seed(1)
        field, x0, a = Field().train(training), torch.randn(1, 2, requires_grad=True), torch.randn(2)
        solver = "reversible_heun" if name == "reversible" else "tsit5"
        x = odeint(field, x0, [0.0, 1.0], args=(a,), sensitivity=name, solver=solver).x[-1]
        found.append(torch.autograd.grad(x.square().sum(), [x0, *field.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=0)
