"""Gradients of a compiled solve that undoes its steps, against those of the eager one through them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dyn_numerics import Bosh3, FixedStep, ReversibleRungeKutta, SplitField, StopAt
from dyn_numerics.loop import is_supported
from dyn_sensitivity import odeint

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(400),
]

D = torch.float64


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


class Field(nn.Module):
    """Non-autonomous, with a further argument."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2, dtype=D)

    def forward(self, t, x, a):
        return a * torch.tanh(self.layer(x)) * torch.cos(t)


def check(field, starts, t, backend="aot_eager", **options):
    """That the compiled gradient is the eager one through the steps: of all outputs, to state, argument and parameters."""
    a, weights = torch.tensor([0.8], dtype=D, requires_grad=True), torch.randn(len(t), *starts[0].shape, dtype=D)

    def loss(x0, a, t, sensitivity):
        x = odeint(field, x0, t, args=(a,), sensitivity=sensitivity, throw=False, **options).x
        return (torch.where(x.isnan(), 0, x) * weights).sum()

    compiled = torch.compile(lambda *given: loss(*given, "reversible"), fullgraph=True, backend=backend)
    for start in starts:
        inputs = [start.clone().requires_grad_(), a, *field.parameters()]
        found, expected = compiled(*inputs[:2], t), loss(*inputs[:2], t, "autograd")
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        # What never took a step does not depend on the field.
        gradients = (torch.autograd.grad(value, inputs, materialize_grads=True) for value in (found, expected))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("outputs", "options"),
    [
        pytest.param(2, {"solver": "reversible_heun", "rtol": 1e-4, "atol": 1e-4}, marks=pytest.mark.slow),
        (5, {"solver": "alf", "rtol": 1e-4, "atol": 1e-4, "stepping": "per_sample"}),
        (5, {"solver": ReversibleRungeKutta("euler"), "step_size": 0.07}),
        pytest.param(5, {"solver": "reversible_heun", "controller": FixedStep()}, marks=pytest.mark.slow),
        pytest.param(
            3,
            {"solver": ReversibleRungeKutta("bosh3"), "controller": StopAt([0.4, 0.9]), "rtol": 1e-4},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["joint", "per sample", "step_size", "on t_span", "stops"],
)
def test_a_compiled_gradient_is_that_of_the_steps(outputs, options):
    """In reversed time."""
    check(Field(), [torch.randn(4, 2, dtype=D)], torch.linspace(1, 0, outputs, dtype=D), **options)


@pytest.mark.slow
def test_a_compiled_gradient_in_code_of_inductor():
    t = torch.linspace(0, 1, 3, dtype=D)
    check(Field(), [torch.randn(4, 2, dtype=D)], t, "inductor", solver="alf", stepping="per_sample", rtol=1e-4)


class Ending(nn.Module):
    """Has neither value nor derivative beyond 5, which the second sample reaches in time or at once, or all of them do."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=D))

    def forward(self, t, x, a):
        return a * self.rate * (x + 0 * torch.sqrt(5 - x))


def test_what_fails_does_not_enter_the_gradient():
    t = torch.tensor([0.0, 0.4, 1.0], dtype=D)
    starts = [torch.tensor(x0, dtype=D).unsqueeze(-1) for x0 in ([1.0, 3.0, 1.5], [1.0, 6.0, 1.5], [6.0, 6.0, 6.0])]
    check(Ending(), starts, t, solver="reversible_heun", stepping="per_sample", rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_split_field():
    """Of methods whose steps have an inverse, symplectic ones too."""
    t = torch.linspace(0, 1, 4, dtype=D)
    q, p, a = (torch.tensor(value, dtype=D, requires_grad=True) for value in ([0.5], [0.2], [0.8]))
    field = SplitField(lambda t, p, a: p, lambda t, q, a: -a * torch.sin(q))

    def loss(q, p, a, sensitivity):
        x = odeint(field, (q, p), t, args=(a,), solver="verlet", step_size=0.1, sensitivity=sensitivity).x
        return (x[0] * x[1]).sum()

    compiled = torch.compile(lambda *given: loss(*given, "reversible"), fullgraph=True, backend="aot_eager")
    gradients = [torch.autograd.grad(one, (q, p, a)) for one in (compiled(q, p, a), loss(q, p, a, "autograd"))]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=0)


def test_what_is_saved_is_one_number_for_every_step_and_no_states():
    field, x0, t = Field(), torch.randn(4, 2, dtype=D, requires_grad=True), torch.tensor([0.0, 1.0], dtype=D)

    def solve(x0):
        options = {"solver": "alf", "step_size": 0.1, "max_steps": 1000, "sensitivity": "reversible"}
        return odeint(field, x0, t, args=(1.0,), **options).x

    node = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0).grad_fn
    while not hasattr(node, "saved_tensors"):
        node = node.next_functions[0][0]
    sizes = sorted(tensor.numel() for tensor in node.saved_tensors)
    assert sizes[-1] == 1002  # ends, one more for the start, and one for what is rejected last
    assert sum(sizes[:-1]) < 100


def test_what_is_refused():
    x0, t = torch.ones(3, 2, dtype=D), torch.tensor([0.0, 1.0], dtype=D)

    def solve(**options):
        torch._dynamo.reset()
        run = torch.compile(
            lambda x0: odeint(lambda t, x: -x, x0, t, sensitivity="reversible", **options).x,
            fullgraph=True,
            backend="eager",
        )
        return run(x0)

    with pytest.raises(Exception, match=r"solver: got Tsit5 with sensitivity='reversible'"):
        solve(solver="tsit5")
    with pytest.raises(Exception, match=r"controller: got StopAt.* across a jump of the field"):
        solve(solver="alf", controller=StopAt([0.5], jumps=True))
    with pytest.raises(Exception, match=r"solver: got the trainable"):
        solve(solver=ReversibleRungeKutta(Bosh3(trainable=True)))
