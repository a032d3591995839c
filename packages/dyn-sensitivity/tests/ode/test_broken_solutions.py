"""Continuous adjoints through events, jumps at known times, and times of single samples: against `autograd`, and differences."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from dyn_numerics import Controller, Event, FixedStep, PIDController, SteadyState, StopAt, Verdict
from dyn_sensitivity import Backsolve, GaussQuadrature, Interpolating, odeint
from dyn_sensitivity.ode.pace import Pace

D = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
VARIANTS = {
    "backsolve": Backsolve(),
    "backsolve, quadrature": Backsolve(quadrature=True),
    "interpolating": Interpolating(),
    "gauss": GaussQuadrature(),
}
EVERY = pytest.mark.parametrize("sensitivity", VARIANTS.values(), ids=VARIANTS)


def leaf(value):
    return torch.tensor(value, dtype=D, requires_grad=True)


def agree(loss, inputs, sensitivity, relative=1e-6):
    """The value is that of `autograd`, and so is the gradient, but for the error of the backward solve."""
    expected, found = loss("autograd"), loss(sensitivity)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(value, inputs) for value in (found, expected)), strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=0, atol=relative * b.abs().max().item())


def fall(t, x, g):
    return torch.stack([x[..., 1], -g - 0.1 * x[..., 1] * x[..., 1].abs()], -1)


def oscillate(t, x, a):
    return torch.stack([x[..., 1], -a * x[..., 0]], -1)


def decay(t, x, a):
    return torch.stack([-a * x[..., 0], x[..., 0] - 2 * x[..., 1]], -1)


def modulated(t, x, a):
    """Per sample; both the time and the order of the samples matter."""
    return torch.stack([x[:, 1] * torch.cos(t[:, 0]), -a * x[:, 0]], -1)


RAGGED = torch.tensor([[0.0, 0.5, 1.0, 2.0], [0.2, 0.7, 1.5, 1.5], [0.1, -0.3, -1.0, -1.4]], dtype=D).T
THREE = [[1.0, 0.3], [0.5, 0.2], [0.1, 0.7]]


# --- events ---


@EVERY
def test_through_jumps(sensitivity):
    """To the field, the start, the condition and the jump; from outputs, times, and states before and after."""
    g, height, kept, x0 = leaf(9.8), leaf(0.05), leaf(0.8), leaf([1.0, 0.3])

    def loss(sensitivity):
        bounce = Event(
            lambda t, x, g: x[0] - height, jump=lambda t, x, g: torch.stack([x[0], -kept * x[1]]), direction=-1
        )
        t = torch.linspace(0, 1.5, 6, dtype=D)
        sol = odeint(fall, x0, t, args=(g,), events=bounce, sensitivity=sensitivity, **TIGHT)
        (record,) = sol.events
        assert record.count.item() == 2
        return sol.x[1:].square().sum() + record.t.sum() + (record.x[:, 1] * record.x_after[:, 1]).sum()

    agree(loss, (g, height, kept, x0), sensitivity, relative=1e-5)


def test_the_error_falls_with_the_tolerance():
    g, kept, x0 = leaf(9.8), leaf(0.8), leaf([1.0, 0.3])
    bounce = Event(lambda t, x, g: x[0], jump=lambda t, x, g: torch.stack([x[0], -kept * x[1]]), direction=-1)
    exact, errors, tolerances = None, [], (1e-12, 1e-5, 1e-7, 1e-9)
    for tolerance in tolerances:
        options = {"rtol": tolerance, "atol": tolerance, "args": (g,), "events": bounce}
        x = odeint(fall, x0, [0.0, 0.7, 1.4], sensitivity="autograd" if exact is None else "adjoint", **options).x
        gradient = torch.cat([p.reshape(-1) for p in torch.autograd.grad(x[1:].square().sum(), (g, kept, x0))])
        exact = gradient if exact is None else exact
        errors.append((gradient - exact).norm().item())
    slope = math.log(errors[1] / errors[3]) / math.log(tolerances[1] / tolerances[3])
    assert 0.6 < slope < 1.4, errors


@EVERY
def test_to_the_time_of_an_event_that_ends_the_solve(sensitivity):
    """Against the closed form: x = x0 exp(-a (t - t0)) is 1/2 at t0 + log(2 x0) / a."""
    a, x0, t = leaf(0.7), leaf([1.3]), leaf([0.1, 1.0, 3.0])
    half = Event(lambda t, x, a: x[0] - 0.5)
    sol = odeint(lambda t, x, a: -a * x, x0, t, args=(a,), events=half, sensitivity=sensitivity, **TIGHT)
    assert torch.isnan(sol.x[-1]).all()
    expected = t[0] + torch.log(2 * x0[0]) / a
    torch.testing.assert_close(sol.events[0].t[0], expected, rtol=1e-7, atol=0)
    found = torch.autograd.grad(sol.events[0].t[0] + sol.x[1, 0], (a, x0, t))
    exact = torch.autograd.grad(expected + x0[0] * torch.exp(-a * (t[1] - t[0])), (a, x0, t))
    for given, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-7)


@EVERY
def test_events_that_are_noted(sensitivity):
    a, x0, t = leaf(0.7), leaf([1.0, 0.3]), leaf([0.1, 1.0, 5.0])
    events = [
        Event(lambda t, x, a: x[0], terminal=False),
        Event(lambda t, x, a: x[1] - 0.1 * a, terminal=False),
        Event(lambda t, x, a: x[0] - 100.0),
    ]

    def loss(sensitivity):
        sol = odeint(oscillate, x0, t, args=(a,), events=events, sensitivity=sensitivity, **TIGHT)
        assert [record.count.item() for record in sol.events] == [1, 2, 0]
        return sol.events[0].t.square().sum() + sol.events[1].x.sum() + sol.x[1:].square().sum()

    agree(loss, (a, x0, t), sensitivity)


@EVERY
def test_events_at_one_time_happen_in_their_order(sensitivity):
    a, x0 = leaf(1.1), leaf([1.0, 0.4])
    events = [
        Event(lambda t, x, a: x[0] - 0.5, jump=lambda t, x, a: a * x),
        Event(lambda t, x, a: 2 * x[0] - 1.0, jump=lambda t, x, a: x + a),
        Event(lambda t, x, a: 0.5 - x[0], terminal=False),
    ]

    def loss(sensitivity):
        sol = odeint(decay, x0, [0.0, 2.0], args=(a,), events=events, sensitivity=sensitivity, **TIGHT)
        return sol.x[-1].square().sum() + sum(record.x_after[0].sum() for record in sol.events)

    agree(loss, (a, x0), sensitivity)


@EVERY
def test_a_condition_on_the_slope(sensitivity):
    """Its derivative needs that of the field at the event, which the solution there alone does not say."""
    a, x0 = leaf(1.3), leaf([1.0, 0.4])
    still = SteadyState(rtol=1e-3, atol=1e-3)

    def loss(sensitivity):
        sol = odeint(decay, x0, [0.0, 50.0], args=(a,), events=still, sensitivity=sensitivity, **TIGHT)
        return sol.events[0].t[0] + sol.events[0].x.sum()

    agree(loss, (a, x0), sensitivity, relative=1e-5)


@EVERY
def test_parameters_of_the_condition_alone(sensitivity):
    """A module that f does not hold, and nothing else that wants a gradient."""
    level = nn.Linear(2, 1).double()
    nn.init.constant_(level.weight, 0.5)
    nn.init.constant_(level.bias, -0.3)
    crosses = Event(lambda t, x: level(x)[0], jump=lambda t, x: x + 1)

    def loss(sensitivity):
        x0 = torch.tensor([1.0, 0.4], dtype=D)
        f = lambda t, x: decay(t, x, 1.1)  # noqa: E731
        sol = odeint(f, x0, [0.0, 1.0, 2.0], events=crosses, sensitivity=sensitivity, **TIGHT)
        return sol.x[1:].square().sum() + sol.events[0].t.sum()

    agree(loss, tuple(level.parameters()), sensitivity)


@EVERY
@pytest.mark.parametrize("times", [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], ids=["forward", "reversed"])
def test_pytrees_in_both_directions(sensitivity, times):
    a, x0 = leaf(1.3), {"p": leaf([1.0, 0.8]), "q": leaf([[0.3, 0.1, 0.2]])}
    turn = Event(
        lambda t, x, a: x["p"][0] - (0.5 if times[0] == 0 else 2.0),
        jump=lambda t, x, a: {"p": x["p"] * a, "q": -x["q"]},
    )

    def f(t, x, a):
        return {"p": -a * x["p"], "q": x["q"] + x["p"].sum()}

    def loss(sensitivity):
        sol = odeint(f, x0, times, args=(a,), events=turn, sensitivity=sensitivity, **TIGHT)
        assert sol.events[0].count.item() >= 1
        return sol.x["p"].square().sum() + sol.x["q"].sum() + sol.events[0].x_after["q"].sum() + sol.events[0].t.sum()

    agree(loss, (a, *x0.values()), sensitivity)


@EVERY
def test_complex_states(sensitivity):
    a, z0 = leaf(1.3), torch.tensor([1.0 + 0.5j], dtype=torch.complex128, requires_grad=True)
    turn = Event(lambda t, z, a: z.real[0], jump=lambda t, z, a: z * (1 + 0.2j * a))

    def loss(sensitivity):
        f = lambda t, z, a: (1j * a - 0.1) * z  # noqa: E731
        sol = odeint(f, z0, [0.0, 2.0, 7.0], args=(a,), events=turn, sensitivity=sensitivity, **TIGHT)
        return sol.x[1:].abs().square().sum() + sol.events[0].t.sum()

    agree(loss, (a, z0), sensitivity)


@EVERY
@pytest.mark.parametrize("fixed", [{"step_size": 0.02}, {}], ids=["step_size", "on the times"])
def test_fixed_steps(sensitivity, fixed):
    a, x0 = leaf(1.3), leaf([1.0, 0.4])
    rise = Event(lambda t, x, a: x[0] - 0.3, jump=lambda t, x, a: x + a)

    def loss(sensitivity):
        t = [0.0, 1.0, 2.0] if fixed else torch.linspace(0, 2, 81, dtype=D)
        sol = odeint(decay, x0, t, args=(a,), solver="rk4", events=rise, sensitivity=sensitivity, **fixed)
        return sol.x[1:].square().sum() + sol.events[0].t.sum()

    agree(loss, (a, x0), sensitivity, relative=1e-7)


def test_checkpoints_lie_in_all_stretches():
    """A strongly contracting state is solved back badly, unless it is put back on the way."""
    a, x0 = leaf(6.0), leaf([1.0])
    switch = Event(lambda t, x, a: t - 2.0 + 0 * x[0], jump=lambda t, x, a: x + a)

    def loss(sensitivity):
        f = lambda t, x, a: a * (torch.cos(t) - x)  # noqa: E731
        sol = odeint(f, x0, [0.0, 4.0], args=(a,), events=switch, sensitivity=sensitivity, rtol=1e-7, atol=1e-7)
        return sol.x[-1].square().sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(loss, (a,), Backsolve(checkpoints=16), relative=1e-4)
    with pytest.warns(UserWarning, match="'adjoint': the state that was solved back is about"):
        torch.autograd.grad(loss("adjoint"), a)


@EVERY
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_span_of_no_length(sensitivity, stepping):
    """The state is that of the start, and has a slope in every time."""
    a, t = leaf(1.3), leaf([1.0, 1.0, 1.0])
    x0 = leaf([1.0, 0.4] if stepping == "joint" else THREE)
    rise = Event(lambda t, x, a: x[..., 0] - 0.3, jump=lambda t, x, a: x + a)

    def loss(sensitivity):
        sol = odeint(decay, x0, t, args=(a,), events=rise, stepping=stepping, sensitivity=sensitivity, **TIGHT)
        return (sol.x * torch.arange(1.0, 4.0).reshape(-1, *[1] * x0.dim())).square().sum()

    agree(loss, (x0, t), sensitivity)


@EVERY
def test_an_event_at_the_very_start(sensitivity):
    """Which moves with the start, where the solution has no length that it could move along."""
    a, x0, t = leaf(1.3), leaf([[1e-9, 2e-9], [1.0, 0.4]]), leaf([0.1, 1.0, 50.0])
    still = SteadyState(rtol=1e-3, atol=1e-3)

    def first(sensitivity):
        sol = odeint(decay, x0[0], t, args=(a,), events=still, sensitivity=sensitivity, **TIGHT)
        assert sol.events[0].t[0] == t[0]
        return sol.events[0].t[0] + sol.events[0].x.sum()

    agree(first, (x0, t), sensitivity)

    def both(sensitivity):
        options = {"events": still, "stepping": "per_sample", "sensitivity": sensitivity, **TIGHT}
        sol = odeint(decay, x0, t, args=(a,), **options)
        return (sol.events[0].t[0] * torch.tensor([1.0, 0.5])).sum() + sol.events[0].x.sum()

    agree(both, (a, x0, t), sensitivity, relative=1e-4)


def test_integrals_of_a_loss():
    a, x0 = leaf(1.3), leaf([1.0, 0.4])
    rise = Event(lambda t, x, a: x[0][0] - 0.3, jump=lambda t, x, a: (x[0] + a, x[1]))

    def loss(sensitivity):
        options = {"events": rise, "integral_loss": lambda t, x, a: a * x.square().sum(), "sensitivity": sensitivity}
        return odeint(decay, x0, [0.0, 2.0], args=(a,), **options, **TIGHT).integral[-1]

    agree(loss, (a, x0), "adjoint")


# --- jumps at known times ---


@EVERY
def test_doses(sensitivity):
    """At the start, at an output, between outputs; with the gradient of what the jump depends on."""
    a, dose, x0, t = leaf(0.7), leaf(0.4), leaf([1.0, 0.3]), leaf([0.0, 1.0, 1.5, 5.0])
    doses = StopAt([0.0, 1.0, 2.0, 4.0], jump=lambda t, x, a: x * torch.stack([1 + dose * t, dose]))

    def loss(sensitivity):
        sol = odeint(oscillate, x0, t, args=(a,), controller=doses, sensitivity=sensitivity, **TIGHT)
        assert torch.equal(sol.x[0], x0)
        return sol.x.square().sum()

    agree(loss, (a, dose, x0, t), sensitivity)


@EVERY
def test_where_field_and_state_jump(sensitivity):
    a, x0, t = leaf(1.1), leaf([1.0, 0.3]), leaf([0.0, 1.0, 2.0])
    jumps = StopAt([1.0, 1.5], jumps=True, jump=lambda t, x, a: x * a)

    def loss(sensitivity):
        f = lambda t, x, a: torch.where(t < 1, 1.0, -2.0) * a * x  # noqa: E731
        return odeint(f, x0, t, args=(a,), controller=jumps, sensitivity=sensitivity, **TIGHT).x.square().sum()

    agree(loss, (a, x0, t), sensitivity)


def test_a_controller_with_stops_of_its_own_has_to_do_without():
    class Stops(Controller):
        @property
        def stops(self):
            return torch.tensor([0.5], dtype=D)

        def judge(self, error, error_order, memory):
            return Verdict(error <= 1, 0.9, memory)

    x0 = leaf([1.0])
    with pytest.raises(NotImplementedError, match=r"Stops\.without_stops: got a controller with stops"):
        odeint(lambda t, x: -x, x0, [0.0, 1.0], controller=Stops(), sensitivity="adjoint")


# --- single samples ---


@EVERY
def test_samples_break_at_times_of_their_own(sensitivity):
    """Twice, twice, four times and never."""
    g, kept, x0 = leaf(9.8), leaf(0.8), leaf([[1.0, 0.3], [2.0, -1.0], [0.4, 0.5], [30.0, 0.0]])
    bounce = Event(
        lambda t, x, g: x[:, 0], jump=lambda t, x, g: torch.stack([x[:, 0], -kept * x[:, 1]], -1), direction=-1
    )

    def loss(sensitivity):
        options = {"events": bounce, "stepping": "per_sample", "sensitivity": sensitivity, **TIGHT}
        sol = odeint(fall, x0, torch.linspace(0, 1.5, 6, dtype=D), args=(g,), **options)
        (record,) = sol.events
        assert record.count.tolist() == [2, 2, 4, 0]
        states = record.x[..., 1] * record.x_after[..., 1]
        return sol.x[1:].square().sum() + torch.nansum(record.t) + torch.nansum(states)

    agree(loss, (g, kept, x0), sensitivity, relative=2e-6)


@EVERY
@pytest.mark.parametrize("compact", [False, True])
def test_samples_end_at_times_of_their_own(sensitivity, compact):
    a, x0 = leaf(1.3), leaf(THREE)
    events = [Event(lambda t, x, a: x[:, 0] - 0.6), Event(lambda t, x, a: x[:, 1], terminal=False)]

    def loss(sensitivity):
        options = {"stepping": "per_sample", "compact": compact, "sensitivity": sensitivity, **TIGHT}
        sol = odeint(modulated, x0, [0.0, 1.0, 4.0], args=(a,), events=events, **options)
        return sum(torch.nansum(record.t) + torch.nansum(record.x) for record in sol.events) + torch.nansum(sol.x)

    agree(loss, (a, x0), sensitivity)


@EVERY
def test_times_of_single_samples(sensitivity):
    """In both directions at once, one filled up with its end."""
    a, x0, t = leaf(0.7), leaf(THREE), RAGGED.clone().requires_grad_()

    def loss(sensitivity):
        sol = odeint(modulated, x0, t, args=(a,), stepping="per_sample", sensitivity=sensitivity, **TIGHT)
        assert torch.equal(sol.t, t)
        return sol.x[1:].square().sum()

    agree(loss, (a, x0), sensitivity)
    found, expected = (torch.autograd.grad(loss(name), t)[0] for name in (sensitivity, "autograd"))
    found[2, 1], expected[2, 1] = found[2:, 1].sum(), expected[2:, 1].sum()  # two names of one time
    found[3, 1] = expected[3, 1] = 0
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-6
    )  # an interpolant has not quite the slope of the field


@EVERY
@pytest.mark.parametrize("bounds", [{"max_step": 0.1, "first_step": 0.01}, {"min_step": 1e-3}])
def test_times_of_single_samples_and_bounds_of_steps(sensitivity, bounds):
    a, x0 = leaf(0.7), leaf(THREE)

    def loss(sensitivity):
        options = {"controller": PIDController(**bounds), "stepping": "per_sample", **TIGHT}
        return odeint(modulated, x0, RAGGED, args=(a,), sensitivity=sensitivity, **options).x.square().sum()

    agree(loss, (a, x0), sensitivity)


def test_steps_of_samples_with_times_of_their_own_are_bounded():
    """The backward solve, whose variable goes through ten units of time at once, takes no longer steps either."""
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -0.1 * x

    x0, t = leaf([[1.0], [2.0]]), torch.tensor([[0.0, 0.0], [10.0, 5.0]], dtype=D)
    x = odeint(f, x0, t, stepping="per_sample", controller=PIDController(max_step=0.5), sensitivity="adjoint").x
    calls = 0
    x[-1].sum().backward()
    assert 20 * 6 < calls < 25 * 6


def test_a_field_is_seen_from_within_the_times_of_a_sample():
    pace = Pace(torch.tensor([[0.0, 1.0], [0.3, 0.7], [0.7, 0.7]], dtype=D), D)
    eps = torch.finfo(D).eps
    for s, below, above in ((0.0, 0.0, 0.3), (1 - eps, 0.0, 0.3), (1.0, 0.3, 0.7), (2.0, 0.3, 0.7)):
        t, rate = pace(torch.tensor(s, dtype=D))
        assert below < t[0] < above
        torch.testing.assert_close(rate[0], torch.tensor(above - below, dtype=D))
    assert abs(pace.longest - 0.4) < 1e-15
    assert (pace(torch.tensor(1.5, dtype=D))[0] - torch.tensor([0.5, 0.7], dtype=D)).abs().max() < 1e-15


@EVERY
def test_times_of_single_samples_and_fixed_steps(sensitivity):
    """Of fourth order: the derivative of the rate at which a sample goes through its times is no matter of the method."""
    a, x0 = leaf(0.7), leaf(THREE)
    errors = []
    for step_size in (0.08, 0.04):
        options = {"solver": "rk4", "step_size": step_size, "stepping": "per_sample"}
        x = odeint(modulated, x0, RAGGED, args=(a,), sensitivity=sensitivity, **options).x
        exact = odeint(modulated, x0, RAGGED, args=(a,), stepping="per_sample", rtol=1e-12, atol=1e-12).x
        pairs = zip(*(torch.autograd.grad(y.square().sum(), (a, x0)) for y in (x, exact)), strict=True)
        errors.append(max((p - q).abs().max().item() for p, q in pairs))
    assert errors[0] < 1e-5
    assert 8 < errors[0] / errors[1] < 40


@EVERY
def test_times_of_single_samples_and_jumps_of_field_and_state(sensitivity):
    a, d, x0 = leaf(0.7), leaf(0.3), leaf(THREE)
    jumps = StopAt([0.6, 0.65, -0.5, -0.8], jumps=True, jump=lambda t, x, a: x * d)

    def f(t, x, a):
        return torch.stack([x[:, 1] * torch.where(t[:, 0] < 0.6, 1.0, -1.0), -a * x[:, 0]], -1)

    def loss(sensitivity):
        options = {"controller": jumps, "stepping": "per_sample", "sensitivity": sensitivity, **TIGHT}
        return odeint(f, x0, RAGGED, args=(a,), **options).x.square().sum()

    agree(loss, (a, d, x0), sensitivity)


@EVERY
@pytest.mark.parametrize("jump", [None, lambda t, x, a: a * x])
def test_stops_of_single_samples(sensitivity, jump):
    a, x0 = leaf(0.7), leaf(THREE)
    stops = StopAt(torch.tensor([[0.3, 0.6, 0.9], [0.8, 0.8, 5.0]], dtype=D), jump=jump)

    def loss(sensitivity):
        options = {"controller": stops, "stepping": "per_sample", "sensitivity": sensitivity, **TIGHT}
        return odeint(modulated, x0, [0.0, 0.5, 1.0], args=(a,), **options).x.square().sum()

    agree(loss, (a, x0), sensitivity)


@EVERY
def test_a_neighbour_that_fails_leaves_the_others_alone(sensitivity):
    """The third blows up before the others break."""
    a, x0 = leaf(1.3), leaf([[1.0], [0.5], [5.0]])
    events = Event(lambda t, x, a: x[:, 0] - 1.2, jump=lambda t, x, a: 0.9 * x)

    def loss(sensitivity):
        options = {"events": events, "stepping": "per_sample", "throw": False, "max_steps": 2000, **TIGHT}
        sol = odeint(lambda t, x, a: a * x**2, x0, [0.0, 0.3, 0.5], args=(a,), sensitivity=sensitivity, **options)
        assert sol.status[:2] == sol.status[1:2] * 2 != sol.status[2:] * 2
        return torch.nansum(sol.x.square())

    agree(loss, (a,), sensitivity, relative=1e-5)


def test_what_a_break_costs():
    """One evaluation forwards for each time something happens; and a failure of the field is that of its own step."""
    calls = 0

    def f(t, x, a):
        nonlocal calls
        calls += 1
        return decay(t, x, a)

    a, x0 = leaf(1.3), leaf([1.0, 0.4])
    rise = Event(lambda t, x, a: x[0] - 0.3, jump=lambda t, x, a: x + a)
    sol = odeint(f, x0, [0.0, 2.0], args=(a,), events=rise, sensitivity="adjoint")
    assert sol.stats.n_evals.item() == calls
    with torch.no_grad():
        plain = odeint(decay, x0, [0.0, 2.0], args=(a,), events=rise)
    assert calls == plain.stats.n_evals.item() + sol.events[0].count.item()


# --- what is refused ---


@pytest.mark.parametrize("sensitivity", ["adjoint", "gauss"])
@pytest.mark.parametrize("of", ["event", "stop"])
def test_jumps_that_are_not_made_again_as_they_were(sensitivity, of):
    """Such as those that draw random numbers, which the others that were drawn do not go with."""
    x0, drawn = leaf([1.0, 0.4]), []

    def jump(t, x, a):
        drawn.append(torch.rand(2, dtype=D))
        return x + drawn[-1]

    made = {"events": Event(lambda t, x, a: x[0] - 0.3, jump=jump)} if of == "event" else {}
    made |= {"controller": StopAt([0.5], jump=jump)} if of == "stop" else {}
    with pytest.raises(ValueError, match=r"jump: led to another state at t = .* draw random numbers before"):
        odeint(decay, x0, [0.0, 1.0], args=(1.3,), sensitivity=sensitivity, **made)


@pytest.mark.parametrize("name", ["condition", "jump", "stop"])
def test_forward_mode_derivatives_of_conditions_and_jumps(name):
    x0 = leaf([1.0, 0.4])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(0.5, dtype=D), torch.tensor(1.0, dtype=D))
        if name == "stop":
            made, where = {"controller": StopAt([0.5], jump=lambda t, x, a: x + dual)}, "controller.jump"
        elif name == "jump":
            made, where = {"events": Event(lambda t, x, a: x[0], jump=lambda t, x, a: x + dual)}, r"events\[0\].jump"
        else:
            made, where = {"events": Event(lambda t, x, a: x[0] - dual)}, r"events\[0\].condition"
        with pytest.raises(ValueError, match=f"{where}: depends on dual, which carries a forward-mode derivative"):
            odeint(decay, x0, [0.0, 1.0], args=(1.3,), sensitivity="adjoint", **made)


def test_checkpoints_have_times_of_all():
    x0 = torch.ones(3, 2, dtype=D, requires_grad=True)
    with pytest.raises(ValueError, match=r"t_span: got times for each sample with Backsolve\(.*checkpoints=2"):
        odeint(modulated, x0, RAGGED, args=(1.0,), stepping="per_sample", sensitivity=Backsolve(checkpoints=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_span": RAGGED, "stepping": "per_sample"}, "t_span: got times for each sample .*torch.compile"),
        ({"controller": StopAt([0.5], jump=lambda t, x, a: x)}, "controller: got one with a jump .*torch.compile"),
    ],
)
def test_refused_when_compiled(options, message):
    t_span = options.pop("t_span", torch.tensor([0.0, 1.0], dtype=D))
    solve = torch.compile(
        lambda x0: odeint(modulated, x0, t_span, args=(1.0,), sensitivity="adjoint", **options).x,
        fullgraph=True,
        backend="eager",
    )
    with pytest.raises(Exception, match=message):
        solve(torch.ones(3, 2, dtype=D, requires_grad=True))


def test_it_is_a_controller_without_stops_that_steps_back():
    assert isinstance(StopAt([1.0], FixedStep()).without_stops(), FixedStep)
    controller = PIDController(max_step=2.0, min_step=0.1, first_step=0.5)
    assert controller.without_stops() is controller
    scaled = controller.in_unit(0.5)
    assert (scaled.max_step, scaled.min_step, scaled.first_step) == (4.0, 0.2, 1.0)
    assert (controller.max_step, controller.min_step, controller.first_step) == (2.0, 0.1, 0.5)
