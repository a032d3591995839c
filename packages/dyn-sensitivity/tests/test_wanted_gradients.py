"""Everything that a problem has gradients to, and nothing else."""

import pytest
import torch
from torch import nn

from dyn_numerics import Event, ExplicitRungeKutta, PerSample
from dyn_numerics.ode.tableaus.explicit import BOSH3
from dyn_sensitivity.wanted_gradients import wanted_gradients


def found(*problem, **options):
    return {id(tensor) for tensor in wanted_gradients(*problem, **options)}


def want(*shape):
    return torch.ones(shape, requires_grad=True)


def test_state_times_args_params_and_modules():
    net, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    x0, end, rate, per_sample, captured = {"a": want(3), "b": torch.ones(3)}, want(), want(), want(3), want()
    wanted = found(
        lambda t, x, *args: frozen(net(x)) * captured,
        x0,
        [0.0, end],
        args=({"rate": rate, "name": "x"}, 3, PerSample(per_sample)),
        params=(captured, captured, torch.ones(2)),
    )
    assert wanted == {id(t) for t in (x0["a"], end, rate, per_sample, captured, net.weight, net.bias)}


def test_solver_controller_and_events():
    solver, height, bounce = ExplicitRungeKutta(BOSH3, trainable=True), nn.Linear(1, 1), nn.Linear(1, 1)
    event = Event(lambda t, x: height(x[..., :1]).sum(), jump=lambda t, x: bounce(x), terminal=False)
    expected = {id(p) for module in (solver, height, bounce) for p in module.parameters()}
    for events in (event, (event,)):
        assert found(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver=solver, events=events) == expected


def test_nothing_to_differentiate_is_refused():
    with pytest.raises(ValueError, match=r"nothing that requires a gradient.*requires_grad_"):
        wanted_gradients(lambda t, x: -x, torch.ones(1), [0.0, 1.0])
