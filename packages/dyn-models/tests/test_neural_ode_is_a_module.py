"""It pickles, copies, loads, moves and trains in mixed precision as any module."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from dyn_models import NeuralODE
from dyn_numerics import PIDController, RungeKutta2
from dyn_sensitivity import Backsolve


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, x):
        return self.net(x) - x * torch.sin(t)


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, t, x):
        return self.scale * x.square().sum(-1)


def models():
    return {
        "plain": NeuralODE(Decay()),
        "adjoint": NeuralODE(Decay(), sensitivity=Backsolve(rtol=1e-4), solver="dopri5"),
        "trainable solver": NeuralODE(Decay(), solver=RungeKutta2(0.7, trainable=True), step_size=0.1),
        "tensors": NeuralODE(Decay(), rtol=torch.tensor([1e-3, 1e-4]), t_span=torch.linspace(0, 1, 3)),
        "controller": NeuralODE(Decay(), controller=PIDController(0.4, 0.3)),
        "integral": NeuralODE(Decay(), integral_loss=Energy()),
        "sequential": NeuralODE(nn.Sequential(nn.Linear(2, 2))),
    }


def twins(model):
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    return {
        "pickle": pickle.loads(pickle.dumps(model)),
        "deepcopy": copy.deepcopy(model),
        "save": torch.load(saved, weights_only=False),
    }


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "save"])
@pytest.mark.parametrize("which", models())
def test_twins_compute_the_same_and_share_nothing(which, how):
    model, x0 = models()[which], torch.randn(3, 2)
    before = model.trajectory(x0)  # caches are filled
    twin = twins(model)[how]
    assert torch.equal(twin.trajectory(x0), before)
    assert repr(twin) == repr(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(0.1)
    assert torch.equal(model.trajectory(x0), before)
    assert not torch.equal(twin.trajectory(x0), before)
    twin.trajectory(x0).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert any(p.grad is not None for p in twin.parameters())


@pytest.mark.parametrize("which", models())
def test_loads_a_state_dict(which):
    one, other, x0 = models()[which], models()[which], torch.randn(3, 2)
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.1)
    assert not torch.equal(one.trajectory(x0), other.trajectory(x0))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.trajectory(x0), other.trajectory(x0))


def test_state_dict_names():
    names = set(NeuralODE(nn.Sequential(nn.Linear(2, 2)), solver=RungeKutta2(0.7, trainable=True)).state_dict())
    assert names == {"vector_field.0.weight", "vector_field.0.bias", "solver.alpha"}
    assert "integral_loss.scale" in NeuralODE(Decay(), integral_loss=Energy()).state_dict()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
def test_moves_to_another_dtype(dtype, tolerance, sensitivity):
    model = NeuralODE(Decay(), sensitivity=sensitivity, rtol=1e-2, atol=1e-2)
    x0 = torch.randn(3, 2)
    expected = torch.autograd.grad(model.trajectory(x0)[-1].sum(), list(model.parameters()))
    value = model.trajectory(x0)
    model = model.to(dtype)
    x = model.trajectory(x0.to(dtype))
    assert x.dtype == dtype
    torch.testing.assert_close(x.double(), value, rtol=tolerance, atol=tolerance)
    found = torch.autograd.grad(x[-1].sum(), list(model.parameters()))
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=0, atol=3 * tolerance * (1 + two.abs().max().item()))
    back = model.to(torch.float64)
    assert back.trajectory(x0).dtype == torch.float64


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
@pytest.mark.parametrize("with_integral", [False, True])
def test_trains_under_autocast(sensitivity, with_integral):
    field = Decay()
    cost = nn.Linear(2, 1)
    loss = (lambda t, x: cost(x).squeeze(-1)) if with_integral else None
    model = NeuralODE(field, sensitivity=sensitivity, integral_loss=loss).to(torch.float32)
    cost.to(torch.float32)
    x0 = torch.randn(3, 2, dtype=torch.float32)
    inputs = [*field.parameters(), *(cost.parameters() if with_integral else ())]

    def gradients(autocast):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            solution = model(x0)
        total = solution.x[-1].sum() + (solution.integral[-1].sum() if with_integral else 0)
        assert total.dtype == torch.float32
        return solution.x.detach(), torch.autograd.grad(total, inputs)  # outside, as PyTorch recommends

    (x, found), (plain, reference) = gradients(True), gradients(False)
    assert not torch.equal(x, plain)  # half precision was at work
    torch.testing.assert_close(x, plain, rtol=3e-2, atol=3e-2)
    # In the backward pass too; but the gradient of the bias of a cost is the number of samples, which has no rounding.
    assert not any(torch.equal(one, two) for one, two in zip(found[:4], reference[:4], strict=True))
    for one, two in zip(found, reference, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=0, atol=5e-2 * two.abs().max().item())


def test_prints_its_settings():
    text = repr(NeuralODE(nn.Linear(2, 2), solver="bosh3", sensitivity="adjoint", rtol=1e-5))
    assert "sensitivity=Backsolve(" in text
    assert "rtol=1e-05" in text
    assert "bosh3" in text


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"])
@pytest.mark.parametrize("which", models())
def test_moves_to_a_gpu(which, device):
    model, x0 = models()[which], torch.randn(3, 2)
    expected = model.trajectory(x0)
    expected[-1].sum().backward()
    gradients = [p.grad.clone() for p in model.vector_field.parameters()]
    model.zero_grad()
    x = model.to(device).trajectory(x0.to(device))
    assert x.device.type == device
    torch.testing.assert_close(x.cpu(), expected, rtol=1e-10, atol=1e-10)
    x[-1].sum().backward()
    for p, gradient in zip(model.vector_field.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad.cpu(), gradient, rtol=1e-8, atol=1e-8)
