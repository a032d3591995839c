"""Fields in two parts: what their parts receive, what they may return, and that all of a solve works with them."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import jacfwd, jacrev, vmap

from dyn_numerics import (
    Event,
    PerSample,
    PIDController,
    Save,
    SplitField,
    Status,
    Step,
    Stepper,
    Tsit5,
    Verlet,
    Yoshida4,
    odeint,
)
from dyn_numerics.contracts.finite_differences import check_gradients
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.times import state_time

D = torch.float64
OSCILLATOR = SplitField(lambda t, p: p, lambda t, q: -q)
PAIR = torch.tensor([1.0, 0.2], dtype=D), torch.tensor([0.0, 0.5], dtype=D)
METHODS = ["verlet", "yoshida4"]


class Additive(Stepper):
    """Heun's method with the parts evaluated one by one, as the explicit one of a split method would be."""

    order = 2
    error_order = 1
    split = "additive"

    def init(self, f, t, x, slope):
        return f(t, x) if slope is None else slope

    def step(self, f, t0, t1, x, carry):
        dt, t = over_state(t1 - t0, x), state_time(t1, x)
        at = x + dt * carry
        second = f(t, at, "a") + f(t, at, "b")
        x1 = x + dt / 2 * (carry + second)
        return Step(x1, dt / 2 * (second - carry), f(t, x1, "a") + f(t, x1, "b"), carry, carry)

    def complete(self, f, t1, step):
        return step

    def interpolant(self, f, t0, t1, x0, step):
        return cubic_hermite(x0, step.x, step.stages, step.carry, over_state(t1 - t0, x0))


# what is accepted


@pytest.mark.parametrize(
    ("f", "solver", "message"),
    [
        (
            lambda t, x: x,
            "verlet",
            r"f: got a function, expected a SplitField for Verlet; try SplitField\(a, b\) with dq",
        ),
        (
            nn.Linear(2, 2),
            Yoshida4(),
            "f: got a Linear, expected a SplitField for Yoshida4; try .* on a state \\(q, p\\)",
        ),
        (lambda t, x: x, Additive(), r"f: got a function, expected a SplitField for Additive; .* where a is the stiff"),
        (
            OSCILLATOR,
            "tsit5",
            r"f: got a SplitField, expected one function or module f\(t, x, \*args\) for Tsit5; give",
        ),
        (
            SplitField(nn.Linear(2, 2), lambda t, q: -q),
            "verlet",
            r"f\.a: got a function .* takes \(t, p, \*args\); .* try lambda t, p: f\.a\(p\)",
        ),
        (SplitField(lambda t, p: p, lambda t: t), "verlet", r"f\.b: got a function .* takes \(t, q, \*args\)"),
        (SplitField(lambda t, x: x, lambda t: t), Additive(), r"f\.b: got a function .* takes \(t, x, \*args\)"),
    ],
)
def test_field_and_method_have_to_go_together(f, solver, message):
    with pytest.raises(TypeError, match=message):
        odeint(f, PAIR, [0.0, 1.0], solver=solver, step_size=0.1)


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (torch.ones(2), TypeError, r"x0: got a tensor, expected a pair \(q, p\)"),
        ((torch.ones(2),) * 3, TypeError, r"x0: got (Py)?TreeSpec\(.*, expected a pair \(q, p\)"),
        (
            {"q": torch.ones(2), "p": torch.ones(2)},
            TypeError,
            r"x0: got (Py)?TreeSpec\(dict.*, expected a pair \(q, p\)",
        ),
        (((), torch.ones(2)), ValueError, r"x0\[0\]: got an empty pytree"),
    ],
)
def test_the_state_has_to_be_a_pair(x0, error, message):
    with pytest.raises(error, match=message):
        odeint(OSCILLATOR, x0, [0.0, 1.0], solver="verlet", step_size=0.1)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (lambda t, p: p[:1], lambda t, q: -q, ValueError, r"f\.a: returned shape \[1\], expected \[2\]"),
        (lambda t, p: p, lambda t, q: (q, q), TypeError, r"f\.b: returned a tuple, expected a tensor"),
        (
            lambda t, p: p.float(),
            lambda t, q: -q,
            TypeError,
            r"f\.a: returned dtype torch\.float32, expected torch\.float64",
        ),
        (lambda t, p: p, lambda t, q: q.mul_(-1), ValueError, r"f\.b: changed the state x in place"),
    ],
)
def test_parts_that_are_wrong_are_named(a, b, error, message):
    with pytest.raises(error, match=message):
        odeint(SplitField(a, b), PAIR, [0.0, 1.0], solver="verlet", step_size=0.1)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (3, torch.sin, "a: got a int, expected a function or module"),
        (nn.Linear, torch.sin, "a: got the class Linear, expected a function or module"),
        (torch.sin, None, "b: got a NoneType, expected a function or module"),
    ],
)
def test_parts_that_cannot_be_called_are_refused_at_once(a, b, message):
    with pytest.raises(TypeError, match=message):
        SplitField(a, b)


def test_an_adaptive_controller_is_refused():
    with pytest.raises(ValueError, match="controller: got"):
        odeint(OSCILLATOR, PAIR, [0.0, 1.0], solver="verlet", controller=PIDController())


def test_a_split_field_is_a_module_of_its_parts():
    net, force = nn.Linear(2, 2), lambda t, q: -q
    field = SplitField(net, force)
    assert field.b is force
    assert list(dict(field.named_parameters())) == ["a.weight", "a.bias"]
    assert list(dict(SplitField(net, net).named_parameters())) == ["a.weight", "a.bias"]


# what parts receive and return


def test_states_of_any_shape_and_structure():
    """Halves of different shapes, pytrees below them, and arguments."""
    seen = []

    def velocity(t, p, mass, lift):
        seen.append((t.shape, p.shape))
        return {"place": p.mT / mass, "sum": p.sum() * lift}

    def force(t, q, mass, lift):
        seen.append((t.shape, q["place"].shape, q["sum"].shape))
        return -q["place"].mT - q["sum"]

    q = {"place": torch.ones(3, 2, dtype=D), "sum": torch.tensor(0.5, dtype=D)}
    p = torch.linspace(0, 1, 6, dtype=D).reshape(2, 3)
    t = [0.0, 1.0]
    found, moved = odeint(SplitField(velocity, force), (q, p), t, solver="yoshida4", step_size=0.01, args=(2.0, 0.3)).x
    whole = odeint(
        lambda t, x: (velocity(t, x[1], 2.0, 0.3), force(t, x[0], 2.0, 0.3)),
        (q, p),
        t,
        solver="dopri8",
        rtol=1e-11,
        atol=1e-11,
    ).x
    assert found["place"].shape == (2, 3, 2)
    assert found["sum"].shape == (2,)
    assert (found["place"] - whole[0]["place"]).abs().max() < 1e-7
    assert (found["sum"] - whole[0]["sum"]).abs().max() < 1e-7
    assert (moved - whole[1]).abs().max() < 1e-7
    assert set(seen) == {((), (2, 3)), ((), (3, 2), ())}


@pytest.mark.parametrize("kind", [list, tuple])
def test_pairs_may_be_lists(kind):
    x = odeint(OSCILLATOR, kind(PAIR), [0.0, 1.0], solver="verlet", step_size=0.1).x
    assert type(x) is kind


def test_time_broadcasts_against_what_comes_with_it():
    """One code for joint and per sample: `[batch, 1, 1]` beside a tensor, `[batch]` beside a pytree."""
    shapes = []

    def velocity(t, p):
        shapes.append(t.shape)
        return {"q": p * torch.cos(t)}

    def force(t, q):
        shapes.append(t.shape)
        return -q["q"]

    q, p = {"q": torch.ones(3, 2, 4, dtype=D)}, torch.zeros(3, 2, 4, dtype=D)
    for stepping, expected in (("joint", {()}), ("per_sample", {(3, 1, 1), (3,)})):
        shapes.clear()
        odeint(SplitField(velocity, force), (q, p), [0.0, 1.0], solver="verlet", step_size=0.5, stepping=stepping)
        assert set(shapes) == expected


def test_halves_of_different_dtypes():
    """Each is handed to the parts and given back in its own; the time comes in that of the state."""
    seen = set()

    def velocity(t, p):
        seen.add((t.dtype, p.dtype))
        return p.float()

    def force(t, q):
        seen.add((t.dtype, q.dtype))
        return -q.double()

    q, p = torch.ones(2, dtype=torch.float32), torch.zeros(2, dtype=D)
    x = odeint(SplitField(velocity, force), (q, p), [0.0, 1.0], solver="yoshida4", step_size=0.02).x
    assert seen == {(D, D), (D, torch.float32)}
    assert [half.dtype for half in x] == [torch.float32, D]
    assert (x[0][-1] - 0.5403023).abs().max() < 1e-6
    assert (x[1][-1] + 0.8414710).abs().max() < 1e-6


def test_complex_states():
    """Both halves, or one."""
    q, p = torch.tensor([1.0 + 2.0j], dtype=torch.complex128), torch.tensor([0.5j], dtype=torch.complex128)
    x = odeint(OSCILLATOR, (q, p), [0.0, 1.0], solver="yoshida4", step_size=0.01).x
    cos, sin = torch.tensor(1.0, dtype=D).cos(), torch.tensor(1.0, dtype=D).sin()
    assert (x[0][-1] - (cos * q + sin * p)).abs() < 1e-7
    field = SplitField(lambda t, p: 1j * p, lambda t, q: -q.imag)
    x = odeint(field, (q.imag * 1j, p.imag), [0.0, 1.0], solver="yoshida4", step_size=0.01).x
    assert x[1].dtype is D
    assert (x[0][-1] - 1j * (cos * 2 + sin * 0.5)).abs() < 1e-7


@pytest.mark.parametrize("solver", [Additive(), Verlet(), Yoshida4()])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("options", [{}, {"step_size": 0.07}, {"step_size": 0.07, "save": "dense"}])
def test_evaluations_are_calls_of_both_parts(solver, stepping, options, counted):
    if solver.split == "additive":
        a, b = counted(lambda t, x: -x), counted(lambda t, x: torch.cos(t) * x)
        x0 = torch.ones(3, 1, dtype=D)
    else:
        a, b = counted(lambda t, p: torch.cos(t) * p), counted(lambda t, q: -torch.sin(q))
        x0 = (torch.ones(3, 1, dtype=D), torch.ones(3, 1, dtype=D))
    for event in ((), Event(lambda t, x: t.reshape(-1) - 0.33 if t.dim() else t - 0.33, terminal=False)):
        a.times.clear(), b.times.clear()
        sol = odeint(SplitField(a, b), x0, [0.0, 0.5, 1.0], solver=solver, stepping=stepping, events=event, **options)
        assert sol.stats.n_evals == a.calls + b.calls
        before = sol.stats.n_evals
        more = sol.resume([1.0, 1.3])
        assert more.stats.n_evals == a.calls + b.calls - before


def test_spans_of_no_length_count_too(counted):
    """They move with their time, by the whole field."""
    a, b = counted(lambda t, p: p), counted(lambda t, q: -q)
    t = torch.tensor([0.5, 0.5], dtype=D, requires_grad=True)
    sol = odeint(SplitField(a, b), PAIR, t, solver="verlet")
    assert sol.stats.n_evals == a.calls + b.calls == 2
    (moved,) = torch.autograd.grad(sol.x[0][-1, 1], t)
    assert moved.tolist() == [-0.5, 0.5]


def test_an_additive_field_is_the_sum():
    whole = odeint(lambda t, x: -3 * x + torch.cos(t) * x, PAIR[0], [0.0, 2.0], rtol=1e-8, atol=1e-8).x
    field = SplitField(lambda t, x: -3 * x, lambda t, x: torch.cos(t) * x)
    for stepping in ("joint", "per_sample"):
        x = odeint(field, PAIR[0], [0.0, 2.0], solver=Additive(), rtol=1e-5, atol=1e-6, stepping=stepping).x
        assert (x - whole).abs().max() < 2e-5


# all of a solve


def forced(q, p, rate, times, **options):
    field = SplitField(lambda t, p: p * (1 + rate * torch.sin(t)), lambda t, q: torch.cos(t) - rate * torch.sin(q))
    return odeint(field, (q, p), times, **options)


@pytest.mark.parametrize("solver", METHODS)
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("options", [{}, {"step_size": 0.3}])
def test_gradients_are_those_of_finite_differences(solver, stepping, options):
    inputs = {
        "q": torch.tensor([[0.3, 1.0], [-0.4, 2.0]], dtype=D),
        "p": torch.tensor([[0.1, 0.2], [0.5, -1.0]], dtype=D),
        "rate": torch.tensor(0.7, dtype=D),
        "times": torch.tensor([0.1, 0.5, 0.8, 1.4], dtype=D),
    }

    def loss():
        q, p = forced(**inputs, solver=solver, stepping=stepping, **options).x
        return (q.sin() + p**2).sum()

    check_gradients("solve", loss, inputs)


@pytest.mark.parametrize("solver", METHODS)
def test_transforms(solver):
    solve = partial(forced, rate=0.7, times=[0.0, 0.4, 1.0], solver=solver, step_size=0.1)
    q, p = torch.randn(2, 3, 2, dtype=D, generator=torch.Generator().manual_seed(1))

    def last(q, p):
        return torch.cat([half[-1] for half in solve(q, p).x], dim=-1)

    for argument in (0, 1):
        forward, reverse = (jacobian(last, argument)(q[0], p[0]) for jacobian in (jacfwd, jacrev))
        assert (forward - reverse).abs().max() < 1e-13
        step = torch.tensor([1e-6, 0.0], dtype=D)
        moved = [(q[0] + s * step, p[0]) if argument == 0 else (q[0], p[0] + s * step) for s in (1, -1)]
        assert ((last(*moved[0]) - last(*moved[1])) / 2e-6 - forward[:, 0]).abs().max() < 1e-8
    together = vmap(last)(q, p)
    for i in range(3):
        assert (together[i] - last(q[i], p[i])).abs().max() < 1e-14


@pytest.mark.parametrize("solver", METHODS)
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_bouncing_ball(solver, stepping):
    """Events on the dense output, jumps of a half of the state, gradients to the start."""
    height = torch.tensor([[1.0], [1.0]], dtype=D, requires_grad=True)
    ball = SplitField(lambda t, p: p, lambda t, q: -torch.ones_like(q))
    ground = Event(
        lambda t, x: x[0][..., 0] if stepping == "per_sample" else x[0][0, 0],
        direction=-1,
        jump=lambda t, x: (x[0].clamp(min=0), -0.5 * x[1]),
    )
    start = height, torch.zeros(2, 1, dtype=D)
    sol = odeint(ball, start, [0.0, 2.0], solver=solver, step_size=0.3, stepping=stepping, events=ground)
    fall = 2**0.5
    time = sol.events[0].t.reshape(sol.events[0].t.shape[0], -1)[0, 0]
    assert time.item() == pytest.approx(fall, abs=1e-12)
    left = 2 - fall
    assert sol.x[0][-1, 0].item() == pytest.approx(0.5 * fall * left - left**2 / 2, abs=1e-12)
    (slope,) = torch.autograd.grad(time, height)
    assert slope[0].item() == pytest.approx(1 / fall, abs=1e-9)  # of sqrt(2 h)


@pytest.mark.parametrize("solver", METHODS)
def test_an_event_ends_samples_and_they_go_on(solver):
    q, p = torch.tensor([[0.3], [0.5], [-1.0]], dtype=D), torch.tensor([[0.2], [0.0], [1.0]], dtype=D)
    options = {"solver": solver, "step_size": 0.05, "stepping": "per_sample"}
    level = Event(lambda t, x: x[0][..., 0] - 0.6)
    sol = forced(q, p, 2.0, [0.0, 2.0], events=level, **options)
    free = forced(q, p, 2.0, [0.0, 2.0], save="dense", **options)
    assert sol.status == [Status.EVENT, Status.SUCCESS, Status.EVENT]
    for i in (0, 2):
        t = sol.t_reached.clone()
        assert free.dense(t.unsqueeze(0))[0][0, i, 0].item() == pytest.approx(0.6, abs=1e-12)


@pytest.mark.parametrize("solver", METHODS)
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_what_is_resumed_is_what_was_not_interrupted(solver, stepping):
    q, p = torch.tensor([[0.3], [0.5]], dtype=D), torch.tensor([[0.2], [0.0]], dtype=D)
    options = {"solver": solver, "step_size": 0.1, "stepping": stepping}
    whole = forced(q, p, 2.0, [0.0, 2.0], **options)
    first = forced(q, p, 2.0, [0.0, 1.0], **options)
    second = first.resume([1.0, 2.0])
    for a, b in zip(whole.x, second.x, strict=True):
        assert (a[-1] - b[-1]).abs().max() < 1e-13
    if stepping == "joint":
        assert first.stats.n_evals + second.stats.n_evals == whole.stats.n_evals


def test_samples_leave_the_batch_with_what_belongs_to_them():
    rate = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=D)
    field = SplitField(
        lambda t, p, rate: (rate.unsqueeze(1) * p).expand(-1, 2), lambda t, q, rate: -rate.unsqueeze(1) * q[:, :1]
    )
    q, p = torch.ones(4, 2, dtype=D), torch.zeros(4, 1, dtype=D)
    t = torch.stack([torch.zeros(4, dtype=D), torch.tensor([0.2, 0.4, 0.6, 3.0], dtype=D)])
    options = {"solver": "yoshida4", "step_size": 0.02, "stepping": "per_sample", "args": (PerSample(rate),)}
    sol = odeint(field, (q, p), t, compact=True, **options)
    assert (sol.x[0][-1, :, 0] - torch.cos(rate * t[1])).abs().max() < 1e-4
    for a, b in zip(sol.x, odeint(field, (q, p), t, **options).x, strict=True):
        assert torch.equal(a, b)


def test_what_is_saved_of_a_pair():
    sol = odeint(
        OSCILLATOR, PAIR, [0.0, 1.0], solver="verlet", step_size=0.25, save=Save(fn=lambda t, x: x[0] ** 2 + x[1] ** 2)
    )
    assert sol.x.shape == (2, 2)
    steps = odeint(OSCILLATOR, PAIR, [0.0, 1.0], solver="verlet", step_size=0.25, save="steps")
    assert [half.shape for half in steps.x] == [(5, 2), (5, 2)]
    assert torch.allclose(sol.x[-1], steps.x[0][-1] ** 2 + steps.x[1][-1] ** 2)


def test_parts_compute_under_autocast():
    net = nn.Linear(2, 2)
    seen = []

    def force(t, q):
        seen.append(net(q).dtype)
        return -q

    with torch.autocast("cpu", torch.bfloat16):
        x = odeint(SplitField(lambda t, p: p, force), (torch.ones(2), torch.zeros(2)), [0.0, 0.1], solver="verlet").x
    assert set(seen) == {torch.bfloat16}
    assert x[0].dtype is torch.float32


def test_a_plain_method_steps_the_pair_as_one_state():
    """What a split method steps in parts, another one steps as a whole, to the same solution."""
    plain = odeint(lambda t, x: (x[1], -x[0]), PAIR, [0.0, 1.0], solver=Tsit5(), rtol=1e-9, atol=1e-9).x
    split = odeint(OSCILLATOR, PAIR, [0.0, 1.0], solver="yoshida4", step_size=0.01).x
    assert all((a - b).abs().max() < 1e-8 for a, b in zip(plain, split, strict=True))
