"""A neural method of a user's own, made by subclassing `Stepper` alone."""

import copy

import pytest
import torch
from torch import nn

from dyn_numerics import PerSample, Step, Stepper, odeint
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.times import state_time

D = torch.float64


class Taylor(Stepper):
    """Two terms of Taylor's series, the second of a network, checked by the slope at the end of the step."""

    order = 1
    error_order = 1
    structured = True

    def __init__(self):
        super().__init__()
        self.bend = nn.Linear(4, 2, dtype=D)
        with torch.no_grad():
            self.bend.weight.copy_(torch.linspace(-0.3, 0.3, 8, dtype=D).reshape(2, 4))
            self.bend.bias.zero_()

    def on(self, context):
        twin = copy.copy(self)
        twin.layout = context.layout
        return twin

    def init(self, f, t, x, slope):
        return f(t, x) if slope is None else slope

    def step(self, f, t0, t1, x, carry):
        dt, rows = over_state(t1 - t0, x), self.layout.unflatten  # the network is one of states [batch, 2]
        bend = self.layout.flatten(self.bend(torch.cat([rows(x), rows(carry)], -1)))
        x1 = x + dt * carry + dt**2 / 2 * bend
        last = f(state_time(t1, x), x1)
        return Step(x1, x1 - x - dt / 2 * (carry + last), last, carry, carry)

    def complete(self, f, t1, step):
        return step

    def interpolant(self, f, t0, t1, x0, step):
        return cubic_hermite(x0, step.x, step.stages, step.carry, over_state(t1 - t0, x0))


def turning(t, x, rate):
    """Samples turn at rates of their own, faster and faster."""
    return rate[..., None] * (1 + t) * torch.stack([x[..., 1], -x[..., 0]], -1)


def exact(t, t0, x0, rate):
    angle = rate * (t + t**2 / 2 - t0 - t0**2 / 2)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x0[..., 0] + sin * x0[..., 1], cos * x0[..., 1] - sin * x0[..., 0]], -1)


RATES = torch.tensor([0.3, 1.0, 4.0], dtype=D)
X0 = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]], dtype=D)


@pytest.mark.parametrize("span", [[0.0, 0.4, 1.0], [1.0, 0.7, 0.0]])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_it_chooses_steps_by_its_own_estimate(stepping, span):
    rate = PerSample(RATES) if stepping == "per_sample" else RATES

    def solve(tolerance):
        options = {"solver": Taylor(), "rtol": tolerance, "atol": tolerance, "stepping": stepping}
        with torch.no_grad():
            sol = odeint(turning, X0, span, args=(rate,), **options)
        expected = torch.stack([exact(torch.tensor(t, dtype=D), span[0], X0, RATES) for t in span])
        return sol, (sol.x - expected).abs().amax((0, 2))

    loose, tight = solve(1e-4), solve(1e-6)
    # No more than all steps' errors together, of which one element's is at most sqrt(6) times the norm's tolerance.
    assert (loose[1] < 2e-4 * 6**0.5 * loose[0].stats.n_accepted.max()).all()
    assert (tight[1] < loose[1] / 5).all()
    ratio = tight[0].stats.n_accepted / loose[0].stats.n_accepted
    assert ((ratio > 7) & (ratio < 13)).all()  # steps follow the square root of the tolerance
    if stepping == "per_sample":
        n = tight[0].stats.n_accepted
        assert n[0] < n[1] < n[2]


def test_samples_do_not_feel_each_other():
    options = {"solver": Taylor(), "rtol": 1e-5, "stepping": "per_sample"}
    with torch.no_grad():
        together = odeint(turning, X0, [0.0, 1.0], args=(PerSample(RATES),), compact=True, **options)
        for i in range(3):
            alone = odeint(turning, X0[i : i + 1], [0.0, 1.0], args=(RATES[i : i + 1],), **options)
            torch.testing.assert_close(together.x[:, i], alone.x[:, 0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_gradients_to_its_network_against_finite_differences(stepping):
    solver = Taylor()

    def loss(**options):
        sol = odeint(turning, X0, [0.0, 0.45, 1.0], args=(RATES,), solver=solver, stepping=stepping, **options)
        return sol.x.square().sum()

    (of_adaptive,) = torch.autograd.grad(loss(rtol=1e-3), solver.bend.weight)
    assert of_adaptive.abs().max() > 1e-3
    (found,) = torch.autograd.grad(loss(step_size=0.1), solver.bend.weight)
    h, weight = 1e-5, solver.bend.weight
    for place in ((0, 0), (0, 3), (1, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * h
                values.append(loss(step_size=0.1).item())
                weight[place] -= sign * h
        assert found[place].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_training_makes_it_accurate():
    """Of `x' = A x` it learns `x''` and what follows in the series; the error at the end falls with it."""
    solver, one = Taylor(), torch.tensor(1.0, dtype=D)
    end = torch.stack([one.cos() * X0[:, 0] + one.sin() * X0[:, 1], one.cos() * X0[:, 1] - one.sin() * X0[:, 0]], -1)
    optimizer = torch.optim.LBFGS(solver.parameters(), line_search_fn="strong_wolfe")

    def error():
        optimizer.zero_grad()
        sol = odeint(lambda t, x: turning(0 * t, x, one), X0, [0.0, 1.0], solver=solver, step_size=0.1)
        distance = (sol.x[-1] - end).square().sum()
        distance.backward()
        return distance

    before = error()
    for _ in range(3):
        optimizer.step(error)
    assert error() < 1e-6 * before
