"""First-order gradients inside of `torch.compile(fullgraph=True)` are those of eager mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dyn_numerics.loop import is_supported
from dyn_sensitivity import ImplicitDifferentiation, Phantom, fixed_point

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(300),
]


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


class Layer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.unused = nn.Parameter(torch.randn(size))
        with torch.no_grad():
            self.linear.weight.mul_(0.5)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x)

    def shifted(self, z, x):
        return self(z, x + 1)


def loss(h, x, sensitivity):
    z, _ = fixed_point(h, torch.zeros_like(x), args=(x,), rtol=1e-10, atol=1e-10, sensitivity=sensitivity)
    return z.square().sum()


@pytest.mark.parametrize(
    ("size", "sensitivity", "backend"),
    [
        (3, ImplicitDifferentiation(), "aot_eager"),
        (70, ImplicitDifferentiation(), "aot_eager"),
        pytest.param(70, ImplicitDifferentiation(), "inductor", marks=pytest.mark.slow),
        pytest.param(4, ImplicitDifferentiation("anderson", rtol=1e-11), "aot_eager", marks=pytest.mark.slow),
        (3, Phantom(steps=3), "aot_eager"),
    ],
    ids=["dense", "gmres", "gmres by inductor", "anderson", "phantom"],
)
def test_gradients_agree_with_eager(size, sensitivity, backend):
    layer = Layer(size)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for _ in range(3):
        x = torch.randn(4, size, requires_grad=True)
        inputs = (x, layer.linear.weight, layer.linear.bias)
        expected = torch.autograd.grad(loss(layer.shifted, x, sensitivity), inputs)
        found = torch.autograd.grad(compiled(layer.shifted, x, sensitivity), inputs)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert counter.frame_count == 1
    compiled(layer.shifted, x, sensitivity).backward()
    if isinstance(sensitivity, ImplicitDifferentiation):
        assert torch.equal(layer.unused.grad, torch.zeros(size))
    else:
        assert layer.unused.grad is None


def test_captured_tensors_of_small_systems_get_their_gradient():
    a = torch.tensor(0.5, requires_grad=True)
    x = torch.randn(3, 2)

    def total(x):
        return loss(lambda z, x: torch.cos(a * z) + x, x, "implicit")

    (found,) = torch.autograd.grad(torch.compile(total, fullgraph=True, backend="eager")(x), a)
    torch.testing.assert_close(found, torch.autograd.grad(total(x), a)[0], rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("sensitivity", "options", "message"),
    [
        (ImplicitDifferentiation("gmres"), {}, "f: captures something that requires a gradient"),
        ("shine", {"solver": "broyden"}, "sensitivity: got 'shine' with torch.compile"),
        ("unrolled", {}, "has none for roots inside torch.compile"),
    ],
)
def test_what_is_refused(sensitivity, options, message):
    a = torch.tensor(0.5, requires_grad=True)

    def total(x):
        return fixed_point(lambda z, x: torch.cos(a * z) + x, x, args=(x,), sensitivity=sensitivity, **options).z.sum()

    with pytest.raises(Exception, match=message):
        torch.compile(total, fullgraph=True, backend="eager")(torch.randn(3, 2))
