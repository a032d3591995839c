"""Adjoints where every sample is a problem of its own."""

import pytest
import torch
from torch import nn

from dyn_numerics import PerSample
from dyn_sensitivity import Backsolve, odeint

D = torch.float64
EVERY = pytest.mark.parametrize("sensitivity", ["adjoint", "interpolated_adjoint", "gauss", Backsolve(quadrature=True)])
OPTIONS = {"stepping": "per_sample", "rtol": 1e-9, "atol": 1e-9}


class Field(nn.Module):
    """Depends on a time for each sample, on parameters and on arguments."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([[0.3, -1.0], [1.0, 0.2]], dtype=D))

    def forward(self, t, x, scale):
        return scale * torch.cos(t) * torch.tanh(x @ self.rate.T)


def gradients(f, sensitivity, x0, scale, wrap=lambda scale: scale, **options):
    x0, scale = x0.clone().requires_grad_(), scale.clone().requires_grad_()
    t = torch.linspace(0, 1, 4, dtype=D)
    sol = odeint(f, x0, t, args=(wrap(scale),), sensitivity=sensitivity, **OPTIONS, **options)
    loss = torch.where(sol.x.isnan(), 0, sol.x).pow(2).sum()
    return sol, torch.autograd.grad(loss, [x0, scale, *(f.parameters() if isinstance(f, nn.Module) else ())])


@EVERY
@pytest.mark.parametrize("wrap", [lambda scale: scale, PerSample], ids=["bare", "PerSample"])
def test_gradients_are_those_of_the_steps(wrap, sensitivity):
    x0 = torch.randn(5, 2, dtype=D, generator=torch.Generator().manual_seed(1))
    scale = torch.linspace(0.5, 2, 5, dtype=D).unsqueeze(1)
    field = Field()
    _, exact = gradients(field, "autograd", x0, scale)
    _, found = gradients(field, sensitivity, x0, scale, wrap)
    for a, b in zip(exact, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        assert a.abs().max() > 1e-2


@EVERY
def test_pytrees_receive_times_for_their_samples(sensitivity):
    def field(t, x, scale):
        assert t.shape == (2,)
        return {"q": x["p"] * torch.cos(t)[:, None], "p": -scale * x["q"]}

    found = {}
    for name in ("autograd", sensitivity):
        scale = torch.tensor(1.3, dtype=D, requires_grad=True)
        x0 = {"q": torch.ones(2, 1, dtype=D), "p": torch.zeros(2, 1, dtype=D)}
        sol = odeint(field, x0, [0.0, 2.0], args=(scale,), sensitivity=name, **OPTIONS)
        (found[name],) = torch.autograd.grad(sol.x["q"][-1].sum(), scale)
    torch.testing.assert_close(found[sensitivity], found["autograd"], rtol=1e-6, atol=0)


@EVERY
def test_a_sample_that_fails_says_nothing_and_the_others_everything(sensitivity):
    """It reaches two outputs, which count, and not the last two."""

    def field(t, x, scale):
        return scale.sum() * x * x

    scale = torch.tensor([1.0], dtype=D)
    both, of_both = gradients(field, sensitivity, torch.tensor([[0.3], [2.0]], dtype=D), scale, throw=False)
    assert both.x[:, 1].isnan().flatten().tolist() == [False, False, True, True]
    _, exact = gradients(field, "autograd", torch.tensor([[0.3], [2.0]], dtype=D), scale, throw=False)
    for a, b in zip(exact, of_both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert (a != 0).all()
