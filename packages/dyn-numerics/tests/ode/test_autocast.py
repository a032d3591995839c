"""Under autocast the user's field computes in half precision, the method does not."""

import pytest
import torch
from torch import nn

from dyn_numerics import odeint

T_SPAN = torch.linspace(0, 1, 9)
MODES = {
    "tsit5": {"solver": "tsit5"},
    "dopri5": {"solver": "dopri5"},
    "bosh3": {"solver": "bosh3"},
    "rk4": {"solver": "rk4"},
    "rk4 between steps": {"solver": "rk4", "step_size": 0.15},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_changes_nothing_about_a_field_that_it_does_not_touch(mode, counted):
    def solve():
        f = counted(lambda t, x: -x * torch.cos(t))
        return odeint(f, torch.ones(3), T_SPAN, rtol=1e-6, save="dense", **mode), f.times

    plain, times = solve()
    with torch.autocast("cpu", torch.bfloat16):
        mixed, mixed_times = solve()
        between, slope = mixed.dense(0.3), mixed.dense.derivative(0.3)
    assert mixed_times == times
    assert torch.equal(mixed.x, plain.x)
    assert torch.equal(between, plain.dense(0.3))
    assert torch.equal(slope, plain.dense.derivative(0.3))


def test_reaches_the_field():
    net, seen = nn.Linear(2, 2), set()

    def f(t, x):
        slope = net(x)
        seen.add(slope.dtype)
        return slope.float()

    with torch.autocast("cpu", torch.bfloat16):
        odeint(f, torch.ones(3, 2), T_SPAN, rtol=1e-2, atol=1e-2)
        assert torch.is_autocast_enabled("cpu")
    assert seen == {torch.bfloat16}
    seen.clear()
    odeint(f, torch.ones(3, 2), T_SPAN, rtol=1e-2, atol=1e-2)
    assert seen == {torch.float32}


def test_a_solve_without_gradients_takes_none_from_what_comes_after():
    """A weight that autocast has cast for the solve is cast again where its gradient is wanted."""
    net, x = nn.Linear(2, 2), torch.ones(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            odeint(lambda t, x: net(x).float(), x, T_SPAN, rtol=1e-2, atol=1e-2)
        net(x).sum().backward()
    assert net.weight.grad.abs().max() > 0.1
