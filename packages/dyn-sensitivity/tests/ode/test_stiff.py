"""Gradients through implicit methods."""

import pytest
import torch
from torch import nn

from dyn_numerics.loop import is_supported
from dyn_sensitivity import Backsolve, odeint

D = torch.float64


class Reaction(nn.Module):
    """Stiff and non-autonomous, with a parameter."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(50.0, dtype=D))

    def forward(self, t, x):
        a, b = x.unbind(-1)
        t = t.squeeze(-1) if t.dim() == x.dim() else t
        return torch.stack([self.rate * (torch.cos(t) - a) + b, torch.sin(t) - 100 * a * b], -1)


def loss(f, x0, **options):
    t_span = torch.tensor([0.0, 0.3, 1.0], dtype=D)
    return odeint(f, x0, t_span, solver="rodas5p", rtol=1e-6, atol=1e-6, max_steps=200, **options).x[1:].square().sum()


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.timeout(400)
def test_compiled_gradients_are_the_eager_ones():
    torch._dynamo.reset()
    f, x0 = Reaction(), torch.tensor([[1.0, 0.5], [0.3, 1.0]], dtype=D)

    def gradients(function):
        start = x0.clone().requires_grad_()
        return torch.autograd.grad(function(f, start, stepping="per_sample"), (start, f.rate))

    for found, expected in zip(
        gradients(torch.compile(loss, fullgraph=True, backend="aot_eager")), gradients(loss), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("sensitivity", ["adjoint", Backsolve(solver="rosenbrock23")])
def test_an_adjoint_is_not_solved_by_an_implicit_method(sensitivity):
    x0 = torch.ones(2, dtype=D, requires_grad=True)
    with pytest.raises(ValueError, match=r"to solve backward by R.*, which would need the Jacobian of the adjoint"):
        loss(Reaction(), x0, sensitivity=sensitivity)


def test_an_explicit_method_may_solve_it():
    x0, f = torch.ones(2, dtype=D, requires_grad=True), Reaction()

    def gradient(sensitivity):
        options = {"solver": "rodas5p", "rtol": 1e-7, "atol": 1e-7, "sensitivity": sensitivity}
        x = odeint(f, x0, torch.tensor([0.0, 0.05], dtype=D), **options).x
        return torch.autograd.grad(x[-1].square().sum(), f.rate)[0]

    torch.testing.assert_close(gradient(Backsolve(solver="dopri5")), gradient("autograd"), rtol=1e-5, atol=0)
