from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from dyn_zoo.flows.exact_trace import ExactTrace


def mlp(dim, width=16):
    return nn.Sequential(
        nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, width), nn.Softplus(), nn.Linear(width, dim)
    )


class OfTime(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = mlp(dim + 1)
        self.read = nn.Linear(dim + 1, dim)

    def forward(self, t, x):
        tx = torch.cat([x, torch.sin(t).expand(len(x), 1)], 1)
        return self.read(self.net(tx) * tx)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("of_time", [False, True])
def test_against_the_whole_jacobian(dim, of_time):
    field = OfTime(dim) if of_time else mlp(dim)
    x, t = torch.randn(7, dim), torch.tensor(0.7)

    def one(row):
        return (field(t, row[None]) if of_time else field(row[None]))[0]

    slope, change = ExactTrace(field)(t, (x, torch.zeros(7)))
    torch.testing.assert_close(slope, vmap(one)(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(change, -vmap(jacrev(one))(x).diagonal(dim1=1, dim2=2).sum(1), rtol=0, atol=1e-13)


def test_takes_the_whole_diagonal_of_an_asymmetric_field():
    a = torch.tensor([[1.0, 20.0, 300.0], [4000.0, 5.0, 60.0], [700.0, 8.0, 90.0]])
    slope, change = ExactTrace(lambda x: x @ a.T)(torch.tensor(0.0), (torch.ones(2, 3), torch.zeros(2)))
    assert change.tolist() == [-96.0, -96.0]
    assert slope[0].tolist() == [321.0, 4065.0, 798.0]


def test_its_own_gradients_are_those_of_the_jacobian():
    """Second derivatives of the field: what training a density needs."""
    field, x = mlp(3), torch.randn(4, 3, requires_grad=True)
    _, change = ExactTrace(field)(torch.tensor(0.0), (x, torch.zeros(4)))
    inputs = [x, *field.parameters()][:-1]  # the last bias moves no derivative
    found = torch.autograd.grad(change.square().sum(), inputs)
    jacobian = torch.autograd.functional.jacobian(lambda x: field(x).sum(0), x, create_graph=True)  # [3, 4, 3]
    expected = torch.autograd.grad(jacobian.diagonal(dim1=0, dim2=2).sum(-1).square().sum(), inputs)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_works_without_gradients():
    field, x = mlp(2), torch.randn(4, 2)
    trace = ExactTrace(field)
    expected = trace(torch.tensor(0.0), (x, torch.zeros(4)))
    with torch.no_grad():
        found = trace(torch.tensor(0.0), (x, torch.zeros(4)))
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert not found[1].requires_grad
    assert expected[1].requires_grad


def test_refuses_a_field_of_another_shape():
    with pytest.raises(ValueError, match=r"vector_field: returned shape \[4, 3\], expected \[4, 2\]"):
        ExactTrace(nn.Linear(2, 3))(torch.tensor(0.0), (torch.ones(4, 2), torch.zeros(4)))
