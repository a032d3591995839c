"""Gradients of solves of fields in two parts."""

import pytest
import torch
from torch import nn

from dyn_numerics import SplitField
from dyn_numerics.loop import is_supported
from dyn_sensitivity import Backsolve, odeint
from dyn_sensitivity.captured_tensors import captured_parameters

D = torch.float64


class Force(nn.Module):
    """Minus the gradient of a learned potential that depends on time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.8, 0.3], [-0.2, 1.1]], dtype=D))

    def forward(self, t, q, drive):
        return -torch.sin(q @ self.weight) @ self.weight.transpose(0, 1) + drive * torch.cos(t)


class Velocity(nn.Module):
    def __init__(self):
        super().__init__()
        self.mass = nn.Parameter(torch.tensor([1.0, 2.0], dtype=D))

    def forward(self, t, p, drive):
        return p / self.mass


def problem():
    field = SplitField(Velocity(), Force())
    q = torch.tensor([[0.3, 1.0], [-0.4, 2.0], [0.1, 0.2]], dtype=D, requires_grad=True)
    p = torch.tensor([[0.1, 0.2], [0.5, -1.0], [0.0, 0.3]], dtype=D, requires_grad=True)
    drive = torch.tensor(0.5, dtype=D, requires_grad=True)
    return field, q, p, drive


def loss(solution):
    q, p = solution.x
    return (q.sin() + p**2).sum()


def gradients(field, q, p, drive, value):
    return torch.autograd.grad(value, [q, p, drive, *field.parameters()])


@pytest.mark.parametrize("solver", ["verlet", "yoshida4"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_autograd_reaches_parts_state_and_args(solver, stepping):
    field, q, p, drive = problem()
    options = {"solver": solver, "stepping": stepping, "step_size": 0.1}

    def value():
        return loss(odeint(field, (q, p), [0.0, 0.5, 1.3], args=(drive,), sensitivity="autograd", **options))

    found = gradients(field, q, p, drive, value())
    for tensor, gradient in zip([q, p, drive, *field.parameters()], found, strict=True):
        direction = torch.linspace(0.5, 1, tensor.numel(), dtype=D).reshape(tensor.shape)
        with torch.no_grad():
            tensor.add_(1e-6 * direction)
            up = value()
            tensor.sub_(2e-6 * direction)
            down = value()
            tensor.add_(1e-6 * direction)
        assert (gradient * direction).sum() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-7, abs=1e-7)


def test_parameters_of_both_parts_are_found():
    field, other = problem()[0], nn.Linear(2, 2)
    assert len(captured_parameters(field)) == 2
    assert len(captured_parameters(SplitField(lambda t, p: other(p), field.b))) == 3


def test_the_adjoint_refuses_it():
    field, q, p, drive = problem()
    with pytest.raises(ValueError, match="f: got a SplitField with sensitivity='adjoint'"):
        odeint(field, (q, p), [0.0, 1.0], args=(drive,), solver="verlet", step_size=0.1, sensitivity="adjoint")
    with pytest.raises(ValueError, match=r"solve backward by Verlet, which steps a SplitField"):
        odeint(lambda t, x: -x, q, [0.0, 1.0], solver="rk4", step_size=0.1, sensitivity=Backsolve(solver="verlet"))
    with torch.no_grad():
        sol = odeint(field, (q, p), [0.0, 1.0], args=(drive,), solver="verlet", step_size=0.1, sensitivity="adjoint")
    assert torch.isfinite(sol.x[0]).all()


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solves")
def test_compiled_gradients_are_eager_ones():
    field, q, p, drive = problem()

    def value(q, p, drive, t):
        options = {"solver": "verlet", "stepping": "per_sample", "sensitivity": "autograd", "max_steps": 20}
        return loss(odeint(field, (q, p), t, args=(drive,), **options))

    t = torch.tensor([0.0, 0.1, 0.3, 0.4], dtype=D)
    eager = value(q, p, drive, t)
    compiled = torch.compile(value, fullgraph=True, backend="aot_eager")(q, p, drive, t)
    assert compiled.item() == pytest.approx(eager.item(), abs=1e-12)
    pairs = zip(gradients(field, q, p, drive, compiled), gradients(field, q, p, drive, eager), strict=True)
    for found, expected in pairs:
        assert (found - expected).abs().max() < 1e-12
