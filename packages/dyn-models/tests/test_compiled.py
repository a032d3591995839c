"""`torch.compile(model, fullgraph=True)` of a NeuralODE, in training too.

Inductor writes code for the two programs of float32; the others go as far as the graphs that it is handed.
"""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dyn_models import NeuralODE
from dyn_numerics.loop import is_supported

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(400),
]


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


def model(**options):
    torch.manual_seed(0)
    return NeuralODE(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double(), **options)


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
def test_outputs_and_gradients(sensitivity):
    x, t = torch.randn(6, 2).float(), torch.linspace(0, 1, 3).float()
    results = []
    for compiled in (True, False):
        system = model(sensitivity=sensitivity, solver="bosh3", rtol=1e-4, atol=1e-4).float()
        solve = torch.compile(system, fullgraph=True) if compiled else system
        _, states = solve(x, t)
        states[1:].pow(2).sum().backward()
        results.append([states.detach(), *(p.grad for p in system.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("sensitivity", ["autograd", pytest.param("adjoint", marks=pytest.mark.slow)])
def test_an_integral_loss(sensitivity):
    x, t = torch.randn(6, 2).double(), torch.linspace(0, 1, 2).double()
    results = []
    for compiled in (True, False):
        system = model(sensitivity=sensitivity, integral_loss=lambda t, x: x.pow(2).sum(-1), rtol=1e-6, atol=1e-6)
        solve = torch.compile(system, fullgraph=True, backend="aot_eager") if compiled else system
        solution = solve(x, t)
        (solution.integral[-1].sum() + solution.x[-1].sum()).backward()
        results.append([solution.integral.detach(), *(p.grad for p in system.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_under_autocast():
    system, x, t = model(rtol=1e-3).float(), torch.randn(6, 2).float(), torch.linspace(0, 1, 2)
    solve = torch.compile(system, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = solve(x, t).x, system(x, t).x
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in system.parameters())


def test_evaluation_without_gradient():
    system, x, t = model(), torch.randn(6, 2).double(), torch.linspace(0, 1, 3).double()
    with torch.no_grad():
        found = torch.compile(system, fullgraph=True, backend="aot_eager")(x, t)
    torch.testing.assert_close(found.x, system(x, t).x, rtol=1e-9, atol=1e-10)
    assert found.status.is_success


def test_two_hundred_training_steps_compile_once():
    counter = CompileCounterWithBackend("aot_eager")
    system = model(rtol=1e-3, atol=1e-3)
    step = torch.compile(lambda x, t: system(x, t).x[-1].pow(2).mean(), fullgraph=True, backend=counter)
    optimiser = torch.optim.Adam(system.parameters(), lr=1e-2)
    losses = []
    for i in range(200):
        optimiser.zero_grad()
        loss = step(torch.randn(6, 2).double(), torch.tensor([0.0, 1.0 + 0.001 * i]).double())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert counter.frame_count == 1
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
