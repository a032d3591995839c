"""Integrals of a loss along the solution: their values, what they see, and what is refused. Gradients are in test_matrix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dyn_numerics import Event, PerSample, ReversibleRungeKutta, Save, SplitField, Tsit5
from dyn_numerics.loop import is_supported
from dyn_sensitivity import IntegralSolution, odeint
from dyn_sensitivity.ode.odeint import ALGORITHMS

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
SOLVERS = {name: ReversibleRungeKutta(Tsit5()) if name == "reversible" else "tsit5" for name in ALGORITHMS}


def decay(t, x):
    return -x


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
@pytest.mark.parametrize("t_span", [[0.2, 0.5, 1.2], [1.2, -0.3], [0.5]], ids=str)
def test_value_against_the_closed_form(sensitivity, t_span):
    """Along x = x0 exp(t0 - t): the integral of t x0^2 exp(2 (t0 - t))."""
    x0 = torch.randn(4, 2, requires_grad=True)
    loss = lambda t, x: t * x.square().sum(-1)  # noqa: E731
    options = {"sensitivity": sensitivity, "solver": SOLVERS[sensitivity], **TIGHT}
    sol = odeint(decay, x0, t_span, integral_loss=loss, **options)
    assert isinstance(sol, IntegralSolution)
    t = torch.tensor(t_span)
    primitive = -torch.exp(2 * (t[0] - t)) * (t / 2 + 1 / 4)
    expected = (primitive - primitive[0])[:, None] * x0.square().sum(-1)
    torch.testing.assert_close(sol.integral, expected, rtol=0, atol=2e-8)
    torch.testing.assert_close(sol.x, torch.exp(t[0] - t)[:, None, None] * x0, rtol=0, atol=2e-8)


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
def test_reaches_the_losses_own_parameters(sensitivity):
    """Along x = exp(-t): l = a x^2 has the integral a (1 - exp(-2)) / 2."""
    cost = nn.Linear(1, 1, bias=False)
    options = {"sensitivity": sensitivity, "solver": SOLVERS[sensitivity], "integral_loss": lambda t, x: cost(x**2)}
    sol = odeint(decay, torch.ones(1), [0.0, 1.0], **options, **TIGHT)
    sol.integral[-1].sum().backward()
    assert cost.weight.grad.item() == pytest.approx((1 - math.exp(-2)) / 2, abs=1e-8)


def test_samples_have_their_own_times_spans_and_args():
    rate, ends = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.4, -0.7])
    t_span = torch.stack([torch.zeros(3), ends])
    seen = []

    def f(t, x, a):
        seen.append(t.shape)
        return -a[:, None] * x

    def loss(t, x, a):
        assert t.shape == (3, 1)
        return a * (t * x).sum(-1)

    sol = odeint(
        f,
        torch.ones(3, 2),
        t_span,
        args=(PerSample(rate),),
        integral_loss=loss,
        stepping="per_sample",
        **TIGHT,
    )
    assert set(seen) == {torch.Size([3, 1])}
    # 2 a times the integral of t exp(-a t)
    expected = 2 / rate * (1 - torch.exp(-rate * ends) * (1 + rate * ends))
    torch.testing.assert_close(sol.integral[-1], expected, rtol=0, atol=1e-8)


def test_everything_else_sees_the_pair():
    """An event on the integral ends the solve; the states at the steps come with their integrals."""
    enough = Event(lambda t, state: state[1] - 0.3)
    sol = odeint(
        decay,
        torch.ones(1),
        [0.0, 5.0],
        integral_loss=lambda t, x: x.sum(),
        events=enough,
        save="steps",
        **TIGHT,
    )
    assert sol.events[0].t.item() == pytest.approx(-math.log(0.7), abs=1e-8)
    x, integral = sol.steps.x
    torch.testing.assert_close(integral, 1 - x[:, 0], rtol=0, atol=1e-8)


def test_a_complex_loss_and_a_pytree():
    """Along x = exp(i t): the integral of x is i (1 - exp(i t))."""
    x0 = {"z": torch.ones(2, dtype=torch.complex128), "u": torch.zeros(3)}
    sol = odeint(
        lambda t, x: {"z": 1j * x["z"], "u": x["u"]}, x0, [0.0, 2.0], integral_loss=lambda t, x: x["z"], **TIGHT
    )
    expected = 1j * (1 - torch.exp(torch.tensor(2j)))
    torch.testing.assert_close(sol.integral[-1], expected.expand(2), rtol=0, atol=1e-8)


def test_is_not_integrated_in_half_precision():
    net = nn.Linear(2, 1, dtype=torch.float32)
    x0 = torch.ones(3, 2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        sol = odeint(decay, x0, [0.0, 1.0], integral_loss=lambda t, x: net(x).squeeze(-1))
    assert sol.integral.dtype == torch.float32


def test_is_not_resumed():
    sol = odeint(decay, torch.ones(1), [0.0, 1.0], integral_loss=lambda t, x: x.sum())
    with pytest.raises(ValueError, match="resume: got a solution with an integral"):
        sol.resume([1.0, 2.0])


BAD = {
    "no function": (TypeError, "integral_loss: got a float", {"integral_loss": 1.0}),
    "of x alone": (TypeError, "integral_loss: got a loss with the signature", {"integral_loss": lambda x: x.sum()}),
    "integer": (
        TypeError,
        r"integral_loss: returned dtype torch.int64",
        {"integral_loss": lambda t, x: (x > 0).sum()},
    ),
    "number": (TypeError, r"integral_loss: returned a float, expected a tensor", {"integral_loss": lambda t, x: 1.0}),
    "field of x alone": (TypeError, "f: got a field with the signature", {"f": lambda x: x}),
    "one for all samples": (
        ValueError,
        r"integral_loss: returned shape \[\], expected one loss for each of 3 samples",
        {"stepping": "per_sample"},
    ),
    "split": (
        ValueError,
        "integral_loss: got one beside a SplitField",
        {"f": SplitField(decay, decay), "solver": "verlet"},
    ),
}


@pytest.mark.parametrize("which", BAD)
def test_bad_input_is_refused_by_name(which):
    error, match, change = BAD[which]
    good = {"f": decay, "x0": torch.ones(3, 2), "t_span": [0.0, 1.0], "integral_loss": lambda t, x: x.sum()}
    with pytest.raises(error, match=match):
        odeint(**good | change)


def test_a_kept_function_is_refused():
    with pytest.raises(ValueError, match="save: got one with fn beside an integral_loss"):
        odeint(
            decay,
            torch.ones(1),
            [0.0, 1.0],
            integral_loss=lambda t, x: x.sum(),
            save=Save(fn=lambda t, x: x),
        )


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.timeout(400)
def test_compiled_reaches_the_parameters_of_both_modules():
    class Cost(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 1)

        def forward(self, t, x):
            return self.net(x).square().sum() * t

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

        def forward(self, t, x):
            return torch.tanh(self.net(x))

    torch._dynamo.reset()
    field, cost = Field(), Cost()
    x0, t_span = torch.randn(3, 2, requires_grad=True), torch.tensor([0.0, 1.0])
    inputs = [x0, *field.parameters(), *cost.parameters()]

    def solve(x0):
        sol = odeint(field, x0, t_span, integral_loss=cost, solver="bosh3", rtol=1e-5)
        return sol.integral[-1] + sol.x[-1].sum()

    found = torch.autograd.grad(torch.compile(solve, fullgraph=True, backend="aot_eager")(x0), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(solve(x0), inputs), rtol=1e-9, atol=1e-12)
