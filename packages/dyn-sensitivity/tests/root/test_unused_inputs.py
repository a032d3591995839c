"""What a root does not depend on: zeros where inputs have to be known, nothing from ordinary graphs; frozen ones nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dyn_numerics import PerSample
from dyn_sensitivity import ImplicitDifferentiation, fixed_point, root_find
from dyn_sensitivity.root.by_name import ROOT_ALGORITHMS

KNOW_THEIR_INPUTS = {"implicit": "implicit", "gmres": ImplicitDifferentiation("gmres", rtol=1e-12)}
GRAPHS = [name for name in ROOT_ALGORITHMS if name != "implicit"]


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = (nn.Parameter(0.3 * torch.randn(3, 3)) for _ in range(2))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)

    def forward(self, z, x, unused):
        return torch.tanh(z @ self.used + self.frozen + x)


def problem():
    """A layer, its arguments, and what it uses and does not use of both."""
    layer, x, unused = Layer(), torch.randn(2, 3, requires_grad=True), torch.randn(2, requires_grad=True)
    return layer, (x, PerSample(unused)), [layer.used, x], [layer.unused, unused]


def solved(layer, args, sensitivity, is_root=False):
    options = {"args": args, "solver": "broyden", "sensitivity": sensitivity, "rtol": 1e-13, "atol": 1e-13}
    if is_root:
        return root_find(lambda z, *args: layer(z, *args) - z, torch.zeros(2, 3), **options).z
    return fixed_point(layer, torch.zeros(2, 3), **options).z


@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize("sensitivity", KNOW_THEIR_INPUTS.values(), ids=KNOW_THEIR_INPUTS)
def test_unused_inputs_get_zeros(sensitivity, is_root):
    layer, args, used, unused = problem()
    z = solved(layer, args, sensitivity, is_root)
    torch.square(z).sum().backward()
    for tensor in unused:
        torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), rtol=0, atol=0)
    expected = torch.autograd.grad(solved(layer, args, "unrolled").square().sum(), used)
    torch.testing.assert_close(tuple(tensor.grad for tensor in used), expected, rtol=1e-8, atol=1e-10)
    assert layer.frozen.grad is None


@pytest.mark.parametrize("sensitivity", KNOW_THEIR_INPUTS.values(), ids=KNOW_THEIR_INPUTS)
def test_second_derivatives_as_well(sensitivity):
    layer, args, used, unused = problem()
    first = torch.autograd.grad(solved(layer, args, sensitivity).sum(), [*used, *unused], create_graph=True)
    assert not any(gradient.any() for gradient in first[2:])
    second = torch.autograd.grad(first[0].square().sum(), [*used, *unused])
    assert all(gradient.any() for gradient in second[:2])
    assert not any(gradient.any() for gradient in second[2:])


def test_a_root_of_unused_inputs_alone():
    layer, args, _, unused = problem()
    layer.used.requires_grad_(False)
    solve = ImplicitDifferentiation()
    z = solved(layer, (args[0].detach(), args[1]), solve)
    assert not any(gradient.any() for gradient in torch.autograd.grad(z.sum(), unused))
    assert solve.last is None  # and costs no linear system


@pytest.mark.parametrize("sensitivity", GRAPHS)
def test_nothing_from_ordinary_graphs(sensitivity):
    layer, args, used, unused = problem()
    solved(layer, args, sensitivity).sum().backward()
    assert all(tensor.grad.any() for tensor in used)
    assert all(tensor.grad is None for tensor in (*unused, layer.frozen))
