"""Derivatives with respect to initial state and times through plain autograd, in reverse and forward mode."""

import math

import pytest
import torch
from torch.func import jacfwd, jacrev, jvp

from dyn_numerics import Bosh3, odeint

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
SPANS = {"forward": [0.2, 0.5, 0.9, 1.1], "reversed": [1.1, 0.9, 0.5, 0.2]}
MODES = {
    "tsit5": {"solver": "tsit5", **TIGHT},
    "dopri5": {"solver": "dopri5", **TIGHT},
    "trainable bosh3": {"solver": Bosh3(trainable=True), **TIGHT},
    "rk4 on t_span": {"solver": "rk4"},
    "rk4 between steps": {"solver": "rk4", "step_size": 0.01},
}
X0 = torch.tensor([1.0, -0.5], dtype=torch.float64)

each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
each_span = pytest.mark.parametrize("span", SPANS.values(), ids=SPANS.keys())


def solve(t_span, x0=X0, **mode):
    return odeint(lambda t, x: x * torch.cos(t), x0, t_span, **mode).x


def exact(t_span, x0=X0):
    return torch.exp(torch.sin(t_span) - torch.sin(t_span[0]))[:, None] * x0


@each_mode
@each_span
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_times(mode, span, jacobian):
    """Every output moves with its own time and, against it, with the first."""
    t_span = torch.tensor(span, dtype=torch.float64)
    tolerance = 2e-3 if mode["solver"] == "rk4" and "step_size" not in mode else 1e-7
    torch.testing.assert_close(
        jacobian(lambda t: solve(t, **mode))(t_span), jacobian(exact)(t_span), rtol=0, atol=tolerance
    )


@each_mode
@each_span
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_initial_state(mode, span, jacobian):
    t_span = torch.tensor(span, dtype=torch.float64)
    found = jacobian(lambda x0: solve(t_span, x0, **mode))(X0)
    tolerance = 1e-3 if mode["solver"] == "rk4" and "step_size" not in mode else 1e-8
    torch.testing.assert_close(found, jacobian(lambda x0: exact(t_span, x0))(X0), rtol=0, atol=tolerance)


def test_a_time_in_the_middle_of_a_step_that_happens_to_lie_at_its_end():
    """Outputs slide along the interpolant: a grid of steps does not move with them."""
    t_span = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    x = odeint(lambda t, x: x, torch.ones(1).double(), t_span, solver="rk4", step_size=0.25).x
    (gradient,) = torch.autograd.grad(x[1].sum(), t_span)
    assert gradient.tolist() == pytest.approx([-math.exp(0.5), math.exp(0.5), 0], abs=2e-3)


@pytest.mark.parametrize("mode", ["tsit5", "rk4"])
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@pytest.mark.parametrize("length", [1, 3])
def test_a_span_of_no_length(mode, jacobian, length):
    t_span = torch.full((length,), 0.3, dtype=torch.float64)
    found = jacobian(lambda t: solve(t, solver=mode))(t_span)
    torch.testing.assert_close(found, jacobian(exact)(t_span), rtol=1e-14, atol=0)
    assert torch.equal(solve(t_span.requires_grad_(), solver=mode), X0.expand(length, 2))


def test_wanting_no_gradient_to_times_makes_no_graph():
    t_span = torch.tensor([0.0, 1.0], requires_grad=True)
    with torch.no_grad():
        assert not solve(t_span).requires_grad


def test_tangents_of_a_list_of_times():
    def end(t1):
        return solve([0.0, t1], **TIGHT)[-1]

    t1 = torch.tensor(0.8, dtype=torch.float64)
    _, tangent = jvp(end, (t1,), (torch.ones_like(t1),))
    torch.testing.assert_close(tangent, X0 * math.exp(math.sin(0.8)) * math.cos(0.8), rtol=1e-8, atol=0)
