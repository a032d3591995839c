"""Step sizes that are learned: gradients of solves with rejections, events and stops, and what is kept of them."""

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, Event, PerSample, Save, StopAt, Verdict, odeint

D = torch.float64


class Learned(Controller):
    """Multiplies the step by a power of the error that it learns; about as many attempts are rejected as accepted."""

    differentiable = True

    def __init__(self, scale=1.3, accepted=1.0):
        super().__init__()
        self.first_step, self.accepted = 0.1, accepted
        self.power = nn.Parameter(torch.tensor(0.15, dtype=D))
        self.scale = nn.Parameter(torch.tensor(scale, dtype=D))

    def judge(self, error, error_order, memory):
        factor = self.scale * torch.exp(-self.power * torch.log(error.clamp(1e-6, 1e6)))
        accept = error < self.accepted
        return Verdict(accept, torch.where(accept, factor, factor.clamp(max=0.7)), memory)


class Pendulum:
    """Oscillators that bounce, and whatever their solution depends on.

    Attributes:
        inputs: Everything that gradients go to.
    """

    def __init__(self):
        self.controller = Learned()
        self.x0 = torch.tensor([[1.0, 0.0], [0.7, 0.2], [1.4, -0.3]], dtype=D, requires_grad=True)
        self.t = torch.tensor([0.0, 0.4, 0.7, 2.0], dtype=D, requires_grad=True)
        self.stiffness, self.level, self.bounce = (
            torch.tensor(value, dtype=D, requires_grad=True) for value in (4.0, -0.2, 0.8)
        )
        self.inputs = [*self.controller.parameters(), self.x0, self.t, self.stiffness, self.level, self.bounce]

    def field(self, t, x, k):
        return torch.stack([x[..., 1], (0.2 * t - k * x[..., :1])[..., 0] - 0.1 * x[..., 1] ** 3], -1)

    def events(self, kind):
        bounces = Event(
            lambda t, x, k: x[..., 0] - self.level,
            jump=lambda t, x, k: torch.stack([x[..., 0], self.bounce * x[..., 1]], -1),
        )
        noted = Event(lambda t, x, k: x[..., 1] - self.level, terminal=False)
        ends = Event(lambda t, x, k: x[..., 1] + 5 * self.level)
        return {"none": (), "bounces": bounces, "noted": noted, "ends": ends, "both": (bounces, noted)}[kind]

    def solve(self, events="bounces", stops=None, samples=slice(None), **options):
        controller = self.controller if stops is None else StopAt(stops, self.controller)
        given = {"stepping": "per_sample", "rtol": 1e-2, "atol": 1e-2, "controller": controller, "solver": "bosh3"}
        given |= {"args": (self.stiffness,), "events": self.events(events)} | options
        return odeint(self.field, self.x0[samples], self.t, **given)


def total(sol):
    events = sum(event.t.nansum() + event.x_after.nan_to_num().sin().sum() for event in sol.events)
    return sol.x.nan_to_num().sin().sum() + events


def assert_gradients(solve, inputs, loss=total, h=1e-6, rtol=1e-6):
    """The gradients are central differences with the step sizes let go, along a direction of each tensor."""
    sol = solve()
    found = torch.autograd.grad(loss(sol), inputs, allow_unused=True)
    for tensor, gradient in zip(inputs, found, strict=True):
        direction = torch.linspace(1.0, -0.5, tensor.numel(), dtype=D).reshape(tensor.shape)
        start, values = tensor.detach().clone(), []
        for shift in (h, -h):
            with torch.no_grad():
                tensor.copy_(start + shift * direction)
                shifted = solve()
                tensor.copy_(start)
            assert torch.equal(shifted.stats.n_steps, sol.stats.n_steps)
            assert torch.equal(shifted.stats.n_accepted, sol.stats.n_accepted)
            values.append(loss(shifted).item())
        along = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert along == pytest.approx((values[0] - values[1]) / (2 * h), rel=rtol, abs=1e-8)


@pytest.mark.parametrize(
    ("events", "stops"), [(events, None) for events in ("none", "bounces", "noted", "ends", "both")] + [("both", [0.5])]
)
@pytest.mark.parametrize("solver", ["bosh3", "reversible_heun", "alf"])
def test_gradients_are_differences(solver, events, stops):
    """Where samples are rejected at attempts of their own, and others have their events meanwhile."""
    problem = Pendulum()
    sol = problem.solve(events, stops, solver=solver)
    assert (sol.stats.n_rejected > 1).all()
    if solver != "bosh3":
        assert len(set(sol.stats.n_steps.tolist())) > 1
    assert_gradients(lambda: problem.solve(events, stops, solver=solver), problem.inputs)


@pytest.mark.parametrize(("events", "stops"), [("none", None), ("none", [0.5]), ("noted", None)])
@pytest.mark.parametrize("solver", ["bosh3", "reversible_heun"])
def test_an_attempt_that_lands_on_a_time_moves_with_it(solver, events, stops):
    """What is tried next is a share of its length: where a step to the end is rejected, or one to a stop, or behind an event."""
    problem = Pendulum()
    assert_gradients(lambda: problem.solve(events, stops, samples=0, stepping="joint", solver=solver), problem.inputs)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_the_longest_step_after_a_jump_moves_with_the_jumps(stepping):
    """Charges that grow to a threshold and fall back: the time between two jumps bounds the next step."""
    controller = Learned(scale=4.0, accepted=5.0)
    x0 = torch.tensor([[0.6], [0.4], [0.3]][: 1 if stepping == "joint" else 3], dtype=D, requires_grad=True)
    current, rest = (torch.tensor(value, dtype=D, requires_grad=True) for value in (1.8, 0.3))
    threshold = Event(
        lambda t, x: x.sum() - 1 if stepping == "joint" else x[..., 0] - 1, jump=lambda t, x: rest * x, max_jumps=50
    )

    def solve():
        options = {"solver": "bosh3", "controller": controller, "events": threshold, "stepping": stepping}
        return odeint(lambda t, x: current - 0.2 * x, x0, [0.0, 1.1, 5.0], rtol=0.1, atol=0.1, **options)

    assert solve().events[0].count.min() > 10
    assert_gradients(solve, [*controller.parameters(), x0, current, rest])


def kept(sol, i=()):
    """All that is kept of one sample, or of a joint solve, without what it is filled up with."""
    n, of = int(sol.stats.n_accepted[i]), (slice(None),) if i == () else (slice(None), i)
    found = [sol.x[of]] if sol.steps is None or len(sol.t) != len(sol.steps.t) else []
    if sol.steps is not None:
        found += [sol.steps.t[of][: n + 1], sol.steps.x[of][: n + 1]]
    if sol.dense is not None:
        found += [sol.dense.t[of][: n + 1], sol.dense.coefficients[of][:n]]
    if sol.internals is not None:
        found += [estimate[of][:n] for estimate in (sol.internals.dt, sol.internals.error)]
    return found


SAVES = [
    Save("steps"),
    Save("dense"),
    Save(("t_span", "steps"), internals=True),
    Save(("dense", "steps"), fn=lambda t, x: t * x[..., :1]),
]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: "+".join(save.states))
@pytest.mark.parametrize("events", ["none", "bounces"])
@pytest.mark.parametrize("solver", ["bosh3", "reversible_heun"])
def test_what_is_kept_is_that_of_each_sample_alone(solver, events, save):
    problem, loss = Pendulum(), lambda found: sum(values.sin().sum() for values in found)
    sol = problem.solve(events, solver=solver, save=save)
    counts, shared = sol.stats.n_accepted, 0.0
    assert (sol.stats.n_rejected > 0).all()
    for i in range(3):
        alone = problem.solve(events, solver=solver, save=save, samples=i, stepping="joint")
        assert alone.stats.n_steps == sol.stats.n_steps[i]
        for together, own in zip(kept(sol, i), kept(alone), strict=True):
            torch.testing.assert_close(together, own, rtol=1e-10, atol=1e-12)
        shared = shared + loss(kept(alone))
        if sol.steps is not None:
            for rows in (sol.steps.t, sol.steps.x):
                assert len(rows) == counts.max() + 1
                assert (rows[counts[i] :, i] == rows[counts[i], i]).all()
        if sol.dense is not None:
            assert (sol.dense.coefficients[counts[i] :, i, 1:] == 0).all()
            assert (
                sol.dense.coefficients[counts[i] :, i, 0] == problem.solve(events, solver=solver, save="steps").x[-1, i]
            ).all()
        if sol.internals is not None:
            assert (sol.internals.error[counts[i] :, i] == 0).all()
    expected = torch.autograd.grad(shared, problem.inputs, allow_unused=True)
    found = torch.autograd.grad(loss([x for i in range(3) for x in kept(sol, i)]), problem.inputs, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def test_nothing_leaves_the_batch():
    problem = Pendulum()
    found = []
    for compact in (False, True):
        ends = torch.tensor([0.4, 2.0, 0.5], dtype=D)
        t = torch.stack([torch.zeros(3, dtype=D), ends])
        k = problem.stiffness * torch.ones(3, dtype=D)
        sol = odeint(
            lambda t, x, k: torch.stack([x[:, 1], -k * x[:, 0]], -1), problem.x0, t, args=(PerSample(k),), solver="bosh3",
            controller=problem.controller, stepping="per_sample", rtol=1e-2, atol=1e-2, compact=compact,
        )  # fmt: skip
        found.append((sol.x, sol.stats.n_evals, *torch.autograd.grad(sol.x.sum(), problem.inputs[:3])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_attempts_are_computed_once():
    """One evaluation of three stages tells whether an attempt is finite, another is differentiated."""
    problem = Pendulum()
    calls = []

    def field(t, x, k):
        calls.append(torch.is_grad_enabled())
        return problem.field(t, x, k)

    sol = odeint(
        field, problem.x0, problem.t, args=(problem.stiffness,), solver="bosh3", controller=problem.controller,
        stepping="per_sample", rtol=1e-2, atol=1e-2, save="dense",
    )  # fmt: skip
    attempts = int(sol.stats.n_steps.max())
    assert sol.stats.n_evals == len(calls)
    assert calls.count(False) == 3 * attempts
    assert len(calls) <= 2 * 3 * attempts + 2


@pytest.mark.parametrize("events", ["none", "bounces"])
def test_a_solve_that_goes_on(events):
    """Step size and memory are carried over with their gradients."""
    problem = Pendulum()

    def solve():
        return problem.solve(events, solver="reversible_heun").resume([2.0, 2.9, 3.5])

    problem.t.requires_grad_(False)
    assert (solve().stats.n_rejected > 1).all()
    assert_gradients(solve, [x for x in problem.inputs if x is not problem.t])


def test_under_torch_func():
    problem = Pendulum()

    def end(stiffness, x0):
        options = {"solver": "reversible_heun", "controller": problem.controller, "stepping": "per_sample"}
        events = problem.events("bounces")
        return odeint(
            problem.field, x0, problem.t, args=(stiffness,), events=events, rtol=1e-2, atol=1e-2, **options
        ).x[-1]

    at, weights = (problem.stiffness, problem.x0), torch.linspace(0.5, 1.5, 6, dtype=D).reshape(3, 2)
    expected = torch.autograd.grad((end(*at) * weights).sum(), at)
    plain = tuple(x.detach() for x in at)
    found = torch.func.vjp(end, *plain)[1](weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    slope = (torch.func.jvp(end, plain, (torch.ones_like(plain[0]), torch.zeros_like(plain[1])))[1] * weights).sum()
    torch.testing.assert_close(slope, expected[0], rtol=1e-9, atol=0)
