from __future__ import annotations

import pytest
import torch
from torch import nn

from dyn_models import IntegralSolution, NeuralODE

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Cost(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)

    def forward(self, t, x):
        return self.net(x).squeeze(-1).square() * torch.cos(t)


@pytest.mark.parametrize("t_span", [[0.0, 0.3, 1.0], [1.0, -0.5], [0.5]])
def test_value_against_the_closed_form(t_span):
    """Along x = x0 exp(-(t - t0)): the integral of (s x)^2."""
    x0 = torch.randn(4, 2)
    model = NeuralODE(lambda x: -x, integral_loss=lambda t, x: (t * x).square().sum(-1), **TIGHT)
    solution = model(x0, t_span)
    assert isinstance(solution, IntegralSolution)

    def primitive(s, start):  # of s^2 exp(-2 (s - start))
        return -torch.exp(-2 * (s - start)) * (s**2 / 2 + s / 2 + 1 / 4)

    t = torch.tensor(t_span)
    expected = (primitive(t, t[0]) - primitive(t[0], t[0]))[:, None] * x0.square().sum(-1)
    torch.testing.assert_close(solution.integral, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(solution.x, torch.exp(t[0] - t)[:, None, None] * x0, rtol=0, atol=1e-7)
    t_eval, x = solution
    assert torch.equal(t_eval, t)
    assert x is solution.x


def test_trajectory_and_times_are_as_without():
    x0, net = torch.randn(4, 2), nn.Linear(2, 2)
    model = NeuralODE(net, integral_loss=lambda x: x.sum(-1), **TIGHT)
    torch.testing.assert_close(model.trajectory(x0), NeuralODE(net, **TIGHT).trajectory(x0), rtol=0, atol=1e-7)
    assert not isinstance(NeuralODE(net)(x0), IntegralSolution)


def test_a_loss_of_any_shape_and_of_a_pytree():
    x0 = (torch.randn(4, 2), torch.randn(3))
    solution = NeuralODE(lambda t, x: x, integral_loss=lambda t, x: x[1].sum(), **TIGHT)(x0, [0.0, 0.5, 1.0])
    assert solution.integral.shape == (3,)
    assert solution.integral[-1].item() == pytest.approx(x0[1].sum().item() * (torch.e - 1), abs=1e-7)


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
@pytest.mark.parametrize("t_span", [[0.1, 0.6, 1.1], [1.1, 0.6, 0.1]], ids=["forward", "reversed"])
@pytest.mark.parametrize("as_function", [False, True])
def test_gradients_against_differences(slope_along, sensitivity, t_span, as_function):
    x0, cost = torch.randn(3, 2, requires_grad=True), Cost()
    field = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    integral_loss = (lambda t, x: cost(t, x)) if as_function else cost
    times = torch.tensor(t_span, requires_grad=True)
    inputs = [x0, times, *field.parameters(), *cost.parameters()]

    def loss(**options):
        solution = NeuralODE(field, integral_loss=integral_loss, **options)(x0, times)
        return (solution.integral[1:].sum(0) + 0.3 * solution.x[-1].square().sum(-1)).mean()

    found = torch.autograd.grad(loss(sensitivity=sensitivity, **TIGHT), inputs)
    assert all(g.abs().max() > 1e-3 for g in found)
    for part in (slice(0, 1), slice(1, 2), slice(2, 6), slice(6, 8)):
        directions = [torch.randn_like(p) for p in inputs[part]]
        got = sum((g * d).sum().item() for g, d in zip(found[part], directions, strict=True))
        expected = slope_along(lambda: loss(solver="dopri5", step_size=0.05), inputs[part], directions)
        assert got == pytest.approx(expected, rel=5e-7, abs=5e-7)


def test_is_called_within_the_span_and_with_the_dtype_of_the_state():
    seen = []

    def loss(t, x):
        seen.append((t.item(), t.dtype, t.shape))
        return x.sum(-1)

    NeuralODE(lambda x: -x, integral_loss=loss)(torch.ones(2, 2, dtype=torch.float32), [2.0, 3.0])
    assert all(2.0 <= t <= 3.0 and dtype == torch.float32 and shape == () for t, dtype, shape in seen)


def test_error_at_construction_names_it():
    with pytest.raises(TypeError, match="integral_loss: got a float"):
        NeuralODE(nn.Linear(2, 2), integral_loss=1.0)
    with pytest.raises(TypeError, match=r"integral_loss: got the signature \(\)"):
        NeuralODE(nn.Linear(2, 2), integral_loss=lambda: 1.0)
