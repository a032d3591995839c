"""Compiled solves with gradient in less ordinary circumstances, against the eager ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dyn_numerics import Bosh3, Euler, HyperStepper, PIDController, Tsit5
from dyn_numerics.loop import is_supported
from dyn_sensitivity import odeint

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(400),
]

D = torch.float64
T = torch.tensor([0.0, 0.4, 1.0], dtype=D)
OPTIONS = {"solver": "bosh3", "rtol": 1e-6, "atol": 1e-6}
SENSITIVITIES = ["autograd", "adjoint"]


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


class Tied(nn.Module):
    """One weight under two names, and one module in two places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
        self.second.weight = self.first.weight
        self.again = self.second

    def forward(self, t, x):
        return torch.tanh(self.again(torch.tanh(self.second(torch.tanh(self.first(x)))))) * torch.cos(t)


def solve(field, x0, t=T, **options):
    return odeint(field, x0, t, **{**OPTIONS, **options})


def compiled(field, backend="aot_eager", **options):
    return torch.compile(lambda x0, t: solve(field, x0, t, **options).x, fullgraph=True, backend=backend)


def gradients(x, x0, field):
    loss = torch.where(x.isnan(), 0, x).pow(2).sum()
    return torch.autograd.grad(loss, [x0, *field.parameters()])


def compare(field, *starts, within=1e-9, backend="aot_eager", **options):
    """Values and gradients from several states, the latter two-sided and not zero."""
    run = compiled(field, backend, **options)
    for x0 in starts:
        x0 = x0.clone().requires_grad_()
        found, expected = run(x0, T), solve(field, x0, **options).x
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, equal_nan=True)
        for one, other in zip(gradients(found, x0, field), gradients(expected, x0, field), strict=True):
            torch.testing.assert_close(one, other, rtol=within, atol=1e-10)
            assert other.abs().max() > 1e-3


@pytest.mark.parametrize("sensitivity", ["autograd", pytest.param("adjoint", marks=pytest.mark.slow)])
def test_tied_weights_and_another_size_of_the_batch(sensitivity):
    """The last batch of an epoch, say: at most one more program."""
    counter = CompileCounterWithBackend("aot_eager")
    starts = [torch.randn(batch, 2, dtype=D) for batch in (4, 7, 9, 3)]
    compare(Tied(), *starts, backend=counter, sensitivity=sensitivity)
    assert counter.frame_count <= 2


def test_numbers_that_change_compile_again():
    counter, field = CompileCounterWithBackend("aot_eager"), Tied()
    x0 = torch.randn(3, 2, dtype=D, requires_grad=True)

    def run(x0, rtol):
        return odeint(field, x0, T, rtol=rtol, atol=1e-9, solver="bosh3").x

    program = torch.compile(run, fullgraph=True, backend=counter)
    for rtol in (1e-3, 1e-5, 1e-7):
        torch.testing.assert_close(program(x0, rtol), run(x0, rtol), rtol=1e-9, atol=1e-10)
    assert 3 <= counter.frame_count <= 5


@pytest.mark.parametrize("sensitivity", ["autograd", pytest.param("adjoint", marks=pytest.mark.slow)])
def test_numbers_that_a_field_refers_to_compile_again(sensitivity):
    class Decay(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu = 1.5
            self.rate = nn.Parameter(torch.tensor(1.0, dtype=D))

        def forward(self, t, x):
            return -self.mu * self.rate * x

    field, t = Decay(), torch.tensor([0.0, 1.0], dtype=D)

    def solve(x0):
        return odeint(field, x0, t, sensitivity=sensitivity, solver="bosh3", rtol=1e-8, atol=1e-8).x[-1].sum()

    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")
    before = torch._dynamo.config.specialize_float
    for mu in (1.5, 0.25, 0.75):
        field.mu = mu
        (found,) = torch.autograd.grad(compiled(torch.ones(1, dtype=D)), field.rate)
        assert found.item() == pytest.approx(-mu * math.exp(-mu), rel=1e-6)
    assert torch._dynamo.config.specialize_float is before


def test_an_adjoint_with_its_own_control_and_tolerances_for_each_element():
    tolerances = torch.tensor([[1e-6, 1e-7]], dtype=D).expand(3, 2)
    controller = PIDController(p=0.4, i=0.3)
    options = {"sensitivity": "adjoint", "controller": controller, "rtol": tolerances, "atol": 1e-8}
    compare(Tied(), torch.randn(3, 2, dtype=D), within=1e-5, **options)


class Ending(nn.Module):
    """Has no value beyond 5, which only the second sample reaches."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=D))

    def forward(self, t, x):
        return self.rate * torch.where(x > 5, torch.nan, x)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_outputs_before_a_failure_have_their_gradient(stepping, sensitivity):
    """In time, and, of a sample, at its start."""
    x0 = torch.tensor([[1.0], [3.0], [1.5]], dtype=D)
    x = solve(Ending(), x0, stepping=stepping, throw=False).x.detach()
    assert x[1].isfinite().all()
    assert x[2, 1].isnan().all()
    starts = [x0] if stepping == "joint" else [x0, torch.tensor([[1.0], [6.0], [1.5]], dtype=D)]
    options = {"stepping": stepping, "throw": False, "sensitivity": sensitivity}
    compare(Ending(), *starts, within=1e-5 if sensitivity == "adjoint" else 1e-9, **options)


def test_what_a_compiled_gradient_would_get_wrong_is_refused():
    x0 = torch.ones(3, 2, dtype=D, requires_grad=True)
    random = nn.Sequential(nn.Linear(2, 2).double(), nn.Dropout(0.5))

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = random

        def forward(self, t, x):
            return self.net(x)

    with pytest.raises(Exception, match="f: holds a Dropout in training mode"):
        compiled(Random())(x0, T)
    assert compiled(Random().eval())(x0, T).isfinite().all()
    with pytest.raises(Exception, match="sensitivity: got 'adjoint' with the trainable solver"):
        compiled(Tied(), sensitivity="adjoint", solver=Tsit5(trainable=True))(x0, T)
    with pytest.raises(Exception, match=r"x0: got torch\.complex128 inside torch\.compile"):
        compiled(Tied())(x0.to(torch.complex128), T)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(("base", "options"), [(Euler(), {"step_size": 0.1}), (Bosh3(), {"rtol": 1e-5})])
def test_a_method_that_knows_the_structure_of_the_state(stepping, base, options):
    """The backward pass steps by the method that the forward one was: for states [3, 2], not for vectors of 6."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2, dtype=D)

        def forward(self, t, x, f):
            return self.layer(torch.cat([x, f], -1)).tanh()

    torch.manual_seed(0)
    field, solver = nn.Linear(2, 2, dtype=D), HyperStepper(base, Net().requires_grad_(False))
    x0 = torch.randn(3, 2, dtype=D, requires_grad=True)

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = field

        def forward(self, t, x):
            return self.layer(x)

    f = Field()

    def loss(x0, t):
        return odeint(f, x0, t, solver=solver, stepping=stepping, max_steps=200, **options).x.square().sum()

    inputs, t = [x0, *f.parameters()], torch.tensor([0.0, 0.33, 1.0], dtype=D)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x0, t), inputs)
    for grad, expected in zip(found, torch.autograd.grad(loss(x0, t), inputs), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-12)
