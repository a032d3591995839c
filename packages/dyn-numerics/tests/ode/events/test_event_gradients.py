"""Times and states of events, and all that follows them, are differentiable."""

import math

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, Event, PerSample, Verdict, odeint

D = torch.float64
STEPPINGS = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def scalar(value):
    return torch.tensor(value, dtype=D, requires_grad=True)


def shaped(x, stepping):
    return x.reshape(1, 1) if stepping == "per_sample" else x.reshape(1)


@STEPPINGS
def test_a_level_that_is_reached(stepping):
    """x = x0 exp(-a (t - t0)) reaches c at t0 + ln(x0 / c) / a; what is left is known too."""
    a, c, start, t0 = scalar(0.7), scalar(0.4), scalar(1.3), scalar(0.2)
    t = torch.stack([t0, torch.tensor(5.0, dtype=D)])
    event = Event(lambda t, x: x[..., 0] - c)
    sol = odeint(lambda t, x: -a * x, shaped(start, stepping), t, events=event, stepping=stepping, **TIGHT)
    expected = t0 + torch.log(start / c) / a
    found = torch.autograd.grad(sol.events[0].t.sum(), (a, c, start, t0), retain_graph=True)
    for got, wanted in zip(found, torch.autograd.grad(expected, (a, c, start, t0)), strict=True):
        assert got.item() == pytest.approx(wanted.item(), rel=1e-8)
    # The state at the event is c, whatever the rest.
    found = torch.autograd.grad(sol.events[0].x.sum(), (a, c, start, t0))
    assert [g.item() for g in found] == pytest.approx([0, 1, 0, 0], abs=1e-8)


@STEPPINGS
def test_parameters_of_modules(stepping):
    """Against differences: a network for the condition, one for the jump, one for the field; with weights shared by none."""
    torch.manual_seed(3)
    field, level, kick = (nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, n)).double() for n in (2, 1, 2))
    modules = nn.ModuleList([field, level, kick])
    x0 = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=D)
    x0 = x0 if stepping == "per_sample" else x0[0]
    first = Event(lambda t, x: t.reshape(t.shape[:1]) - 0.5 + 0.3 * level(x).squeeze(-1), jump=lambda t, x: x + kick(x))
    second = Event(lambda t, x: t.reshape(t.shape[:1]) - 1.2 + 0.1 * x[..., 0], terminal=False)

    def loss():
        f = lambda t, x: field(x) - 0.3 * x + torch.sin(t)  # noqa: E731
        sol = odeint(f, x0, [0.0, 2.0], events=[first, second], stepping=stepping, **TIGHT)
        assert (sol.events[0].count == 1).all()
        return sol.x[-1].sum() + 2 * sol.events[0].t.sum() + sol.events[1].t.sum() + sol.events[1].x.square().sum()

    loss().backward()
    for module in modules:
        weight = module[0].weight
        h, (i, j) = 1e-5, (1, 0)
        with torch.no_grad():
            weight[i, j] += h
            above = loss()
            weight[i, j] -= 2 * h
            below = loss()
            weight[i, j] += h
        assert weight.grad[i, j].item() == pytest.approx(((above - below) / (2 * h)).item(), rel=1e-6)
        assert weight.grad[i, j].abs() > 1e-4


def test_the_solve_after_the_event_depends_on_its_time():
    """x' = 1 before t_e = c, 3 after: x(T) = c + 3 (T - c). A solver that forgets the time finds no gradient."""
    c = scalar(0.4)

    def f(t, s):
        return torch.stack([s[1], torch.zeros_like(s[1])])

    event = Event(lambda t, s: t - c, jump=lambda t, s: torch.stack([s[0], 3 * s[1]]))
    sol = odeint(f, torch.tensor([0.0, 1.0], dtype=D), [0.0, 1.0], events=event)
    (gradient,) = torch.autograd.grad(sol.x[-1, 0], c)
    assert gradient.item() == pytest.approx(-2.0, abs=1e-12)


def test_explicit_times_after_an_event():
    """The field depends on time itself, so that steps that move with the event see other times."""
    c = scalar(0.4)
    event = Event(lambda t, x: t - c, jump=lambda t, x: 2 * x)
    for options in (TIGHT, {"solver": "rk4", "step_size": 0.01}):
        sol = odeint(
            lambda t, x: torch.cos(3 * t) + 0 * x, torch.zeros(1, dtype=D), [0.0, 1.0], events=event, **options
        )
        (gradient,) = torch.autograd.grad(sol.x[-1, 0], c)
        assert gradient.item() == pytest.approx(math.cos(1.2), rel=1e-7)  # of sin(3 c) / 3 + sin(3) / 3


def test_a_jump_that_only_some_samples_could_make():
    """Elsewhere it has no value, and no gradient that could reach what all share."""
    scale = scalar(2.0)
    x0 = torch.tensor([[4.0], [0.5]], dtype=D, requires_grad=True)
    event = Event(lambda t, x: x[..., 0] - 3, direction=-1, jump=lambda t, x: scale * torch.sqrt(x - 2))
    sol = odeint(lambda t, x: -x, x0, [0.0, 1.0], events=event, stepping="per_sample", **TIGHT)
    found = torch.autograd.grad(sol.x[-1].sum(), (scale, x0))
    # sample 0 is at 3 after ln(4 / 3), then 2, then decays: x(1) = scale exp(-(1 - ln(x0 / 3)))
    decayed = math.exp(math.log(4 / 3) - 1)
    assert found[0].item() == pytest.approx(decayed, rel=1e-9)
    torch.testing.assert_close(found[1], torch.tensor([[2 * decayed / 4], [math.exp(-1)]], dtype=D), rtol=1e-8, atol=0)


def test_a_condition_without_derivative_for_a_neighbour():
    level = scalar(0.5)
    x0 = torch.tensor([[1.0], [0.0]], dtype=D)
    event = Event(lambda t, x: torch.sqrt(x[..., 0]) - level)  # the second sample stays at the root's corner
    sol = odeint(lambda t, x: -x, x0, [0.0, 3.0], events=event, stepping="per_sample", **TIGHT)
    (gradient,) = torch.autograd.grad(sol.events[0].t[0, 0], level)
    assert gradient.item() == pytest.approx(-2 / 0.5, rel=1e-8)  # t = -2 ln(level)


def test_arguments_that_belong_to_samples():
    levels = torch.tensor([0.5, 0.25, 3.0], dtype=D, requires_grad=True)
    event = Event(lambda t, x, level: x[..., 0] - level)
    x0 = torch.ones(3, 1, dtype=D)
    for compact in (False, True):
        sol = odeint(
            lambda t, x, level: -x,
            x0,
            [0.0, 3.0],
            args=(PerSample(levels),),
            events=event,
            stepping="per_sample",
            compact=compact,
            **TIGHT,
        )
        (gradient,) = torch.autograd.grad(sol.events[0].t.nansum(), levels)
        torch.testing.assert_close(gradient, torch.tensor([-2.0, -4.0, 0.0], dtype=D), rtol=1e-8, atol=0)


class Sized(Controller):
    """Steps whose size is a parameter."""

    differentiable = True

    def __init__(self):
        super().__init__()
        self.log_size = nn.Parameter(torch.tensor(math.log(1.1), dtype=D))
        self.first_step = 0.23

    def judge(self, error, error_order, memory):
        return Verdict(error < math.inf, torch.exp(self.log_size) + 0 * error.clamp(max=1), memory)


@STEPPINGS
def test_step_sizes_that_are_learned(stepping):
    controller = Sized()
    event = Event(lambda t, x: x[..., 0] - 0.6, jump=lambda t, x: x + 0.3)

    def loss():
        x0 = shaped(torch.tensor(1.0, dtype=D), stepping)
        sol = odeint(
            lambda t, x: -x * x,
            x0,
            [0.0, 1.2],
            solver="bosh3",
            controller=controller,
            events=event,
            stepping=stepping,
            max_steps=60,
            throw=False,
        )
        return sol.x[-1].sum() + sol.events[0].t.sum()

    (found,) = torch.autograd.grad(loss(), controller.log_size)
    with torch.no_grad():
        values = []
        for shift in (1e-5, -1e-5):
            controller.log_size += shift
            values.append(loss().item())
            controller.log_size -= shift
    assert found.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)
    assert abs(found.item()) > 1e-7


@pytest.mark.parametrize(
    "condition",
    [lambda t, x: (t - 0.5) ** 3, lambda t, x: torch.where(x[0] > 0.5, 1.0, -1.0), lambda t, x: torch.sign(x[0] - 0.5)],
)
def test_a_condition_without_slope(condition):
    """What follows the event has no gradient then, and a part of it would be wrong; nobody minds without gradients."""
    rate = scalar(1.0)
    event = Event(condition, jump=lambda t, x: x + 1)
    t_span = [0.0, 0.25, 1.0]
    assert (
        odeint(lambda t, x: -x, torch.ones(1, dtype=D), t_span, solver="rk4", step_size=0.25, events=event)
        .events[0]
        .count
        == 1
    )
    with pytest.raises(ValueError, match=r"events\[0\].condition: got one whose derivative in time is zero"):
        odeint(lambda t, x: -rate * x, torch.ones(1, dtype=D), t_span, solver="rk4", step_size=0.25, events=event)


@STEPPINGS
@pytest.mark.parametrize("derivative", [torch.func.jacfwd, torch.func.jacrev])
def test_derivatives_of_parameters_by_transforms(stepping, derivative):
    """x = exp(-t) until ln(1 / c), then kicked by k: x(1) = (c + k) exp(-(1 - ln(1 / c)))."""

    def end(c, k):
        event = Event(lambda t, x: x[..., 0] - c, jump=lambda t, x: x + k)
        sol = odeint(
            lambda t, x: -x,
            shaped(torch.tensor(1.0, dtype=D), stepping),
            [0.0, 1.0],
            events=event,
            stepping=stepping,
            **TIGHT,
        )
        return sol.x[-1].sum() + sol.events[0].t.sum()

    c, k = torch.tensor(0.5, dtype=D), torch.tensor(1.0, dtype=D)
    found = derivative(end, argnums=(0, 1))(c, k)
    left = math.exp(-(1 - math.log(2)))  # d left / d c = -left / c
    assert found[0].item() == pytest.approx(left - 1.5 * left / 0.5 - 1 / 0.5, rel=1e-8)
    assert found[1].item() == pytest.approx(left, rel=1e-8)


@pytest.mark.parametrize("jump", [lambda t, x: x * math.inf, lambda t, x: torch.sqrt(x - 0.55)])
def test_neighbours_of_a_jump_to_no_state(jump):
    rate = scalar(1.0)
    x0 = torch.tensor([[1.0], [0.2]], dtype=D)
    event = Event(lambda t, x: x[..., 0] - 0.5, jump=lambda t, x: jump(t, rate * x))
    sol = odeint(lambda t, x: -rate * x, x0, [0.0, 1.0], events=event, stepping="per_sample", throw=False, **TIGHT)
    assert [status.name for status in sol.status] == ["NON_FINITE", "SUCCESS"]
    assert sol.t_reached[0].item() == pytest.approx(math.log(2), abs=1e-9)
    (gradient,) = torch.autograd.grad(sol.x[-1, 1].sum(), rate)
    assert gradient.item() == pytest.approx(-0.2 * math.exp(-1), rel=1e-9)


def test_nothing_is_computed_twice_that_has_no_gradient(counted):
    """A jump that nobody could differentiate costs no second pass, one that could does."""
    counts = []
    for kick in (torch.tensor(1.0, dtype=D), scalar(1.0)):
        f = counted(lambda t, x: -x)
        event = Event(lambda t, x: x[..., 0] - 0.5, jump=lambda t, x, kick=kick: x + kick)
        sol = odeint(f, torch.ones(1, 1, dtype=D), [0.0, 1.0], events=event, stepping="per_sample")
        assert sol.stats.n_evals == f.calls
        assert sol.x.requires_grad == kick.requires_grad
        counts.append(f.calls)
    assert counts[1] > 1.8 * counts[0]
