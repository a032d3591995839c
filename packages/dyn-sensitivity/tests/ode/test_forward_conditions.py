"""A field that is evaluated after the forward solve computes as in it."""

from __future__ import annotations

import pytest
import torch

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
