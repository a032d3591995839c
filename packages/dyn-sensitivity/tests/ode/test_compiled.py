"""First-order gradients of a solve inside of torch.compile(fullgraph=True).

Inductor writes code for one program of each kind, dyn-models for those of float32; the others go as far as the graphs
that it is handed.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dyn_numerics import FixedStep, PIDController, Status, StopAt
from dyn_numerics.loop import is_supported
from dyn_sensitivity import odeint

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(400),
]

D = torch.float64
TIGHT = {"rtol": 1e-8, "atol": 1e-8, "solver": "dopri5"}


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


class Field(nn.Module):
    """Non-autonomous, elementwise but for one small layer, with a further argument."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2).double()

    def forward(self, t, x, a):
        return a * torch.tanh(self.layer(x)) * torch.cos(t)


@pytest.fixture
def field():
    return Field()


@pytest.fixture
def x0():
    return torch.randn(4, 2, dtype=D, generator=torch.Generator().manual_seed(1))


def gradients(solve, field, x0, a, t):
    """Of a weighted sum of all outputs, to the state, the argument and the parameters; and the value."""
    weights = torch.randn(len(t), *x0.shape, dtype=D, generator=torch.Generator().manual_seed(2))
    x0, a = x0.clone().requires_grad_(), torch.tensor(a, dtype=D, requires_grad=True)
    value = (solve(x0, a, t) * weights).sum()
    return [value.detach(), *torch.autograd.grad(value, [x0, a, *field.parameters()])]


def check(field, x0, t, backend="aot_eager", a=(0.8,), **options):
    """That a compiled solve has the gradients of an eager one; torch 2.13 traces it twice where `a` has no dimension."""

    def solve(x0, a, t):
        return odeint(field, x0, t, args=(a,), **options).x

    given = x0.clone(), t.clone()
    found = gradients(torch.compile(solve, fullgraph=True, backend=backend), field, x0, a, t)
    assert torch.equal(x0, given[0])
    assert torch.equal(t, given[1])
    for one, other in zip(found, gradients(solve, field, x0, a, t), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("stepping", "outputs", "backend", "a"),
    [
        pytest.param("joint", 2, "inductor", [0.8], marks=pytest.mark.slow),
        ("joint", 5, "aot_eager", 0.8),
        ("per_sample", 2, "aot_eager", [0.8]),
        ("per_sample", 5, "inductor", [0.8]),
    ],
)
def test_autograd(stepping, outputs, backend, a, field, x0):
    t = torch.linspace(0, 2, outputs, dtype=D)
    check(field, x0, t, backend, a, stepping=stepping, sensitivity="autograd", **TIGHT)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rk4"},
        {"solver": "heun", "step_size": 0.07},
        {"solver": "bosh3", "rtol": 1e-5},
        {"solver": "tsit5", "controller": PIDController(p=0.4, i=0.3), "rtol": 1e-5},
    ],
    ids=["on t_span", "step_size", "bosh3", "PI"],
)
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_autograd_of_other_methods(options, stepping, field, x0):
    t = torch.linspace(1, 0, 4, dtype=D)
    check(field, x0, t, stepping=stepping, sensitivity="autograd", **options)


@pytest.mark.parametrize(
    ("outputs", "backend", "a"),
    [(2, "aot_eager", 0.8), pytest.param(4, "inductor", [0.8], marks=pytest.mark.slow)],
)
def test_adjoint(outputs, backend, a, field, x0):
    check(field, x0, torch.linspace(0, 1, outputs, dtype=D), backend, a, sensitivity="adjoint", **TIGHT)


class Switched(Field):
    """Jumps at 0.4."""

    def forward(self, t, x, a):
        return torch.where(t < 0.4, 1.0, -2.0) * super().forward(t, x, a)


@pytest.mark.parametrize(
    "options",
    [
        {"stepping": "per_sample", **TIGHT},
        {"solver": "rk4", "controller": StopAt([0.4], FixedStep(), jumps=True)},
        {"sensitivity": "adjoint", **TIGHT, "rtol": 1e-11, "atol": 1e-11},
        pytest.param(
            {
                "sensitivity": "adjoint",
                "stepping": "per_sample",
                "controller": StopAt(torch.tensor([[0.4] * 4, [0.1, 0.2, 0.5, 0.9]], dtype=D), jumps=True),
                "rtol": 1e-12,
                "atol": 1e-12,
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["autograd", "on t_span", "adjoint", "adjoint, stops of samples"],
)
def test_stops_where_the_field_jumps(options, x0):
    t = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=D)
    check(Switched(), x0, t, **{"controller": StopAt([0.4], jumps=True), **options})


class Dosed(Field):
    """With a trained dose, which has no derivative where none is given."""

    def __init__(self):
        super().__init__()
        self.dose = nn.Parameter(torch.tensor([0.3, 0.5], dtype=D))

    def give(self, t, x, a):
        known = torch.where((t == 0.0) | (t == 0.4) | (t == 0.7), 1.0, torch.nan)
        return x * a * known.sqrt() + self.dose * (1 + t)


@pytest.mark.parametrize(
    "options",
    [
        TIGHT,
        {"stepping": "per_sample", **TIGHT},
        {"solver": "rk4", "stops": ([0.0, 0.4, 0.7, 1.0], FixedStep())},
        {"solver": "rk4", "step_size": 0.05, "stops": ([0.0, 0.4, 0.7, 1.0], FixedStep())},
    ],
    ids=["joint", "per sample", "on t_span", "step_size"],
)
@pytest.mark.parametrize(
    "times", [[0.0, 0.3, 0.7, 1.0], pytest.param([0.0, 1.0], marks=pytest.mark.slow)], ids=["outputs", "ends"]
)
def test_doses(options, times, x0):
    """At the start, between outputs, at an output, and at the end, where it is left out."""
    field, options, x0 = Dosed(), dict(options), x0 * torch.tensor([[1.0], [30.0], [0.01], [-3.0]], dtype=D)
    stops = StopAt(*options.pop("stops", ([0.0, 0.4, 0.7, 1.0],)), jump=field.give)
    check(field, x0, torch.tensor(times, dtype=D), controller=stops, **options)


def test_doses_of_another_module(x0):
    field, dose = Field(), nn.Linear(2, 2).double()
    stops = StopAt([0.5], jump=lambda t, x, a: dose(x))

    def solve(x0):
        return odeint(field, x0, [0.0, 1.0], args=(1.0,), controller=stops).x

    with pytest.raises(Exception, match="jump: captures something that requires a gradient"):
        torch.compile(solve, fullgraph=True, backend="eager")(x0.requires_grad_())


def test_every_samples_own_times(field, x0):
    t = torch.stack([torch.linspace(0, end, 4, dtype=D) for end in (1.0, -0.5, 2.0, 0.0)], 1)
    check(field, x0, t, stepping="per_sample", sensitivity="autograd", **TIGHT)


def test_a_failed_sample_does_not_enter_the_gradient():
    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.tensor(0.5, dtype=D))

        def forward(self, t, x):
            return self.p * torch.where(x > 5, torch.nan, -x)

    field = Rooted()
    x0 = torch.tensor([[1.0], [6.0], [2.0]], dtype=D)

    def solve(x0):
        return odeint(field, x0, torch.tensor([0.0, 1.0], dtype=D), stepping="per_sample").x

    def gradient(solve, x0, good):
        return torch.autograd.grad(solve(x0)[-1, good].sum(), field.p)[0]

    found = gradient(torch.compile(solve, fullgraph=True, backend="aot_eager"), x0, [0, 2])
    torch.testing.assert_close(found, gradient(solve, x0[[0, 2]], [0, 1]), rtol=1e-10, atol=0)


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
def test_the_cause_of_a_failure_is_looked_for(sensitivity, x0):
    class Stiff(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(1e5, dtype=D))

        def forward(self, t, x):
            return -self.rate * (x - torch.cos(t))

    stiff, t = Stiff(), torch.tensor([0.0, 1.0], dtype=D)
    solve = torch.compile(
        lambda x0: odeint(stiff, x0, t, sensitivity=sensitivity, max_steps=300), fullgraph=True, backend="eager"
    )
    assert solve(x0).status is Status.STIFFNESS_SUSPECTED


@pytest.mark.parametrize(
    ("sensitivity", "solver"),
    [("autograd", "bosh3"), pytest.param("adjoint", "bosh3", marks=pytest.mark.slow), ("reversible", "alf")],
)
def test_training_steps_compile_once(sensitivity, solver, field, x0):
    """With other states, times and parameters in each of 200."""
    counter = CompileCounterWithBackend("aot_eager")
    optimiser = torch.optim.SGD(field.parameters(), lr=1e-2)
    options = {"rtol": 1e-2, "atol": 1e-2, "solver": solver, "sensitivity": sensitivity}

    def loss(x0, t):
        return odeint(field, x0, t, args=(1.0,), **options).x[-1].pow(2).mean()

    step = torch.compile(loss, fullgraph=True, backend=counter)
    values = []
    for i in range(200):
        optimiser.zero_grad()
        value = step(x0 * (1 - 1e-4 * i), torch.tensor([0.0, 1.0 + 0.001 * i], dtype=D))
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert counter.frame_count == 1
    assert values[-1] < values[0]


def test_what_is_saved_does_not_depend_on_the_number_of_outputs(field, x0):
    def saved(outputs):
        torch._dynamo.reset()
        t = torch.linspace(0, 1, outputs, dtype=D)
        solve = torch.compile(
            lambda x0, t: odeint(field, x0, t, args=(1.0,), max_steps=64, solver="bosh3").x,
            fullgraph=True,
            backend="aot_eager",
        )
        node = solve(x0.clone().requires_grad_(), t).grad_fn
        while not hasattr(node, "saved_tensors"):
            node = node.next_functions[0][0]
        assert len(node.saved_tensors) > 5
        return sum(tensor.nbytes for tensor in node.saved_tensors)

    few, many = saved(3), saved(103)
    assert many - few <= 100 * 2 * 8 * 2  # the times themselves


def test_differentiable_times_one_by_one_are_refused(field, x0):
    end = torch.tensor(1.0, dtype=D, requires_grad=True)
    solve = torch.compile(lambda x0, t: odeint(field, x0, [0.0, t], args=(1.0,)).x, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="t_span: got a tensor that requires a gradient"):
        solve(x0, end)


def test_what_is_refused(x0):
    weight = torch.ones(2, dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 1.0], dtype=D)
    for sensitivity in ("autograd", "adjoint"):
        torch._dynamo.reset()
        with pytest.raises(Exception, match="f: captures something that requires a gradient"):
            torch.compile(
                lambda x0, s=sensitivity: odeint(lambda t, x: weight * x, x0, t, sensitivity=s).x,
                fullgraph=True,
                backend="eager",
            )(x0)
        torch._dynamo.reset()
        with pytest.raises(Exception, match="t_span: got a tensor that requires a gradient"):
            torch.compile(
                lambda x0, t, s=sensitivity: odeint(lambda t, x: -x, x0, t, sensitivity=s).x,
                fullgraph=True,
                backend="eager",
            )(x0, t.clone().requires_grad_())


@pytest.mark.parametrize("solver", ["reversible_heun", "adams_bashforth"])
def test_a_method_whose_steps_rest_on_those_before_is_refused(solver, x0):
    """Taken again one by one, they would be other steps."""
    torch._dynamo.reset()

    def solve(x0):
        return odeint(lambda t, x: -x, x0, [0.0, 1.0], solver=solver, step_size=0.1).x

    with pytest.raises(Exception, match=r"(?s)solver: got .*, whose steps rest on those before"):
        torch.compile(solve, fullgraph=True, backend="eager")(x0)
