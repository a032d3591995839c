"""A field that is evaluated after the forward solve computes as in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dyn_sensitivity import odeint
from dyn_sensitivity.ode.forward_conditions import ForwardConditions


def draw_and_multiply():
    a = torch.randn(8, 8, dtype=torch.float32)
    return a @ a


@pytest.mark.parametrize("mixed", [False, True])
def test_random_numbers_and_autocast_are_those_of_before(mixed):
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        before = ForwardConditions(torch.device("cpu"))
        expected = draw_and_multiply()
    torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=not mixed), before.restored():
        found = draw_and_multiply()
    assert found.dtype == (torch.bfloat16 if mixed else torch.float32)
    assert torch.equal(found, expected)


def test_the_generators_go_on_as_if_nothing_had_been_drawn():
    before = ForwardConditions(torch.device("cpu"))
    state = torch.get_rng_state()
    with before.restored():
        torch.randn(3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"])
def test_random_numbers_of_a_gpu(device):
    before = ForwardConditions(torch.device(device))
    expected = torch.randn(3, device=device)
    with before.restored():
        assert torch.equal(torch.randn(3, device=device), expected)


@pytest.mark.parametrize("sensitivity", ["adjoint", "interpolated_adjoint", "gauss"])
@pytest.mark.filterwarnings("ignore:.*is in training mode")
def test_an_adjoint_draws_the_numbers_of_its_forward_solve(sensitivity):
    """Whatever is drawn in between; and nobody else notices."""
    net, x0 = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4)), torch.ones(3, 4)
    options = {"sensitivity": sensitivity, "solver": "rk4", "step_size": 0.25}
    found = []
    for in_between in (1, 5):
        torch.manual_seed(1)
        x = odeint(lambda t, x: net(x), x0, [0.0, 1.0], **options).x[-1]
        torch.randn(in_between)
        state = torch.get_rng_state()
        found.append(torch.autograd.grad(x.sum(), list(net.parameters())))
        assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(*found, rtol=0, atol=0)
