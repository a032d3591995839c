"""Methods of Adams: orders on any grid, what a step costs, and histories that begin, break off and go on."""

import math
import random
from functools import partial
from itertools import pairwise

import pytest
import torch

from dyn_numerics import (
    AdamsBashforth,
    AdamsMoulton,
    Event,
    FixedStep,
    PerSample,
    PIDController,
    StopAt,
    odeint,
)
from dyn_numerics.contracts.forced_oscillator import ForcedOscillator
from dyn_numerics.contracts.host_reads import HostReads
from dyn_numerics.loop import is_supported

D = torch.float64
ORDERS = [1, 2, 3, 4]
each_method = pytest.mark.parametrize("make", [AdamsBashforth, AdamsMoulton], ids=["bashforth", "moulton"])
each_order = pytest.mark.parametrize("order", ORDERS)
# Evaluations of a first step: the slope at its start is known, that at its end is the next step's.
START = {AdamsBashforth: {1: 1, 2: 2, 3: 3, 4: 4}, AdamsMoulton: {1: 2, 2: 3, 3: 4, 4: 6}}
STEP = {AdamsBashforth: 1, AdamsMoulton: 2}


def at(t):
    return torch.tensor(t, dtype=D)


def walk(method, f, times, x):
    carry = method.init(f, at(times[0]), x, None)
    for t0, t1 in pairwise(times):
        step = method.step(f, t0, t1, x, carry)
        yield step
        x, carry = step.x, step.carry


def oscillator(t, x):
    return ForcedOscillator()(t[..., 0] if t.dim() else t, x)


def wave(t, x):
    return torch.cos(t) * torch.sin(x)


def grid(kind, n, start, end):
    if kind == "doubling and halving":
        lengths = [2.0 ** abs(i % 8 - 4) for i in range(n)]
    elif kind == "random":
        number = random.Random(n)
        lengths = [math.exp(number.uniform(-0.7, 0.7)) for _ in range(n)]
    times = [start]
    for length in lengths:
        times.append(times[-1] + (end - start) * length / sum(lengths))
    return [*times[:-1], end]


@each_method
@each_order
@pytest.mark.parametrize("kind", ["doubling and halving", "random"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "reversed"])
def test_order_on_uneven_grids(make, order, kind, start, end):
    """Without a step that starts again: all but the first rest on history."""
    problem, x0, calls = ForcedOscillator(), torch.tensor([0.6, 0.3], dtype=D), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return problem(t, x)

    errors, sizes = [], [48, 96, 192, 384]
    for n in sizes:
        calls, times = 0, grid(kind, n, start, end)
        *_, last = walk(make(order), f, times, x0)
        errors.append((last.x - problem.exact(at([end]), start, x0)[0]).abs().max().item())
        starts = order - 1
        assert calls == 1 + starts * START[make][order] + (n - starts) * STEP[make]
    slope = math.log(errors[0] / errors[-1]) / math.log(sizes[-1] / sizes[0])
    assert slope == pytest.approx(order, abs=0.25)  # grids of chance are not of one shape


@each_method
@each_order
def test_exact_where_the_slope_is_a_polynomial(make, order):
    """Of degree order - 1 in time, at random times; the first steps are of that order as well."""
    number, powers = random.Random(order), torch.arange(order, dtype=D)

    def f(t, x):
        return (t**powers).sum() + 0 * x

    times = [0.0]
    for _ in range(12):
        times.append(times[-1] + number.uniform(0.1, 0.3))
    *_, last = walk(make(order), f, times, torch.zeros(1, dtype=D))
    assert last.x.item() == pytest.approx(sum(times[-1] ** (k + 1) / (k + 1) for k in range(order)), rel=1e-13)


@each_order
def test_the_estimate_is_the_error_of_the_step(order):
    """Milne's device, on an uneven grid: from exact slopes, the step's own error but for a higher order."""
    problem, x0, method = ForcedOscillator(), torch.tensor([0.6, 0.3], dtype=D), AdamsMoulton(order)
    ratios = []
    for h in (0.02, 0.01):
        times = [0.3 + h * s for s in (-4.5, -3.2, -2.3, -1.0, 0.0, 1.2)]
        exact = problem.exact(at(times), 0.0, x0)
        history = method.init(problem, at(times[4]), exact[4], None)._replace(
            slopes=tuple(problem(at(times[i]), exact[i]) for i in range(3, 4 - order, -1)),
            times=tuple(times[i] for i in range(3, 4 - order, -1)),
        )
        step = method.step(problem, times[4], times[5], exact[4], history)
        ratios.append((step.error / (exact[5] - step.x)).sub(1).abs().max().item())
    assert ratios[1] < 0.2
    assert ratios[1] < 0.7 * ratios[0]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_first_steps_are_as_long_as_those_that_follow(order):
    """On the linear test problem their estimate is Milne's; a cubic between longer ones would be too far off."""
    x0, constant = torch.ones(1, dtype=D), {2: 1 / 12, 3: 1 / 24, 4: 19 / 720}[order]
    step = next(walk(AdamsMoulton(order), lambda t, x: x, [0.0, 0.01], x0))
    assert step.error.abs().item() == pytest.approx(constant * 0.01 ** (order + 1), rel=0.03)
    t = torch.linspace(0, 1, 50, dtype=D)
    for tolerance in (1e-4, 1e-6, 1e-8):
        sol = odeint(lambda t, x: x, x0, t, solver=AdamsMoulton(order), rtol=tolerance, atol=tolerance)
        assert (sol.x[:, 0] - t.exp()).abs().max() < {2: 2000, 3: 200, 4: 100}[order] * tolerance


@each_method
@pytest.mark.parametrize(
    ("order", "of_bashforth", "of_moulton"), [(1, -2.0, -1.0), (2, -1.0, -2.0), (3, -6 / 11, -1.729), (4, -0.3, -1.285)]
)
def test_where_they_are_stable(make, order, of_bashforth, of_moulton):
    """On the negative axis: the intervals of Hairer, Norsett, Wanner II, section V.1, and of predictor and corrector."""
    edge = of_bashforth if make is AdamsBashforth else of_moulton

    def growth(q):
        x = [step.x.abs().item() for step in walk(make(order), lambda t, x: q * x, range(600), torch.ones(1, dtype=D))]
        return x[-1] / x[298]

    with torch.no_grad():
        assert growth(0.98 * edge) < 1
        assert growth(1.02 * edge) > 1


@each_method
@each_order
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_counts_of_fixed_steps(make, order, stepping, counted):
    f = counted(wave)
    sol = odeint(f, torch.ones(3, 1, dtype=D), [0.0, 1.0], solver=make(order), step_size=0.1, stepping=stepping)
    starts = order - 1
    assert f.calls == sol.stats.n_evals == 1 + starts * START[make][order] + (10 - starts) * STEP[make]


@each_method
def test_a_sample_that_has_ended_needs_no_first_steps(make, counted):
    f, t = counted(wave), torch.tensor([[0.0, 0.0], [1.0, 0.1]], dtype=D)
    odeint(f, torch.ones(2, 1, dtype=D), t, solver=make(), step_size=0.1, stepping="per_sample")
    assert (
        f.calls == 1 + 3 * START[make][4] + 7 * STEP[make] + 2 * STEP[make]
    )  # two while it stands and the other starts


def test_counts_of_an_adaptive_solve(counted):
    """A rejected step costs what an accepted one does, and history is as it was."""
    f = counted(lambda t, x: torch.cos(20 * t) * 5 * x)
    stats = odeint(f, torch.ones(2, dtype=D), [0.0, 2.0], solver="adams_moulton", rtol=1e-5).stats
    assert f.calls == stats.n_evals
    assert stats.n_rejected > 5
    begun = (f.calls - 2 - 2 * stats.n_steps.item()) / 4  # steps of Dormand and Prince take four more
    assert begun == int(begun)
    assert 3 <= begun < stats.n_steps / 4


@each_method
def test_host_reads(make):
    """None more jointly, once there is a history, and one more a step per sample."""

    def reads(n, stepping):
        with HostReads() as reads, torch.no_grad():
            odeint(wave, torch.ones(3, 1, dtype=D), torch.linspace(0, 1, n + 1), solver=make(), stepping=stepping,
                   controller=FixedStep())  # fmt: skip
        return len(reads.found)

    plain = {"joint": 0, "per_sample": 1}
    for stepping, read in plain.items():
        assert (reads(30, stepping) - reads(10, stepping)) / 20 == read + (stepping == "per_sample")


@each_method
@each_order
def test_a_history_that_is_too_short_is_left_alone(make, order, counted):
    """Two output times that are almost one: the slopes there say nothing of the step behind them."""
    f = counted(ForcedOscillator())
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5 + 1e-13, 0.6, 0.7, 0.8, 0.9, 1.0]
    x0 = torch.tensor([0.6, 0.3], dtype=D)
    found = odeint(f, x0, times, solver=make(order), controller=FixedStep())
    exact = ForcedOscillator().exact(at(times), 0.0, x0)
    evenly = odeint(ForcedOscillator(), x0, [t / 10 for t in range(11)], solver=make(order), controller=FixedStep())
    without = (evenly.x - ForcedOscillator().exact(at([t / 10 for t in range(11)]), 0.0, x0)).abs().max()
    assert (found.x - exact).abs().max() < 1.5 * without
    starts = 2 * (order - 1)
    assert f.calls == 1 + starts * START[make][order] + (11 - starts) * STEP[make]


@each_method
def test_steps_of_no_length(make):
    """As of samples that have ended: the state stays, and neither values nor gradients are lost."""
    t = torch.tensor([[0.0, 0.0], [0.5, 0.1], [1.0, 0.1], [1.5, 0.1]], dtype=D, requires_grad=True)
    x0, rate = torch.ones(2, 1, dtype=D), torch.ones(1, dtype=D, requires_grad=True)

    def solve(rows):
        x = odeint(lambda t, x: rate * wave(t, x), x0[rows], t[:, rows], solver=make(), step_size=0.05,
                   stepping="per_sample").x  # fmt: skip
        return x, torch.autograd.grad(x.sum(), (rate, t), retain_graph=True)

    x, (of_rate, of_t) = solve([0, 1])
    alone = [solve([i]) for i in range(2)]
    torch.testing.assert_close(x, torch.cat([a[0] for a in alone], 1), rtol=0, atol=1e-15)
    torch.testing.assert_close(of_rate, sum(a[1][0] for a in alone), rtol=0, atol=1e-14)
    torch.testing.assert_close(of_t, sum(a[1][1] for a in alone), rtol=0, atol=1e-14)


@each_method
def test_a_repeated_time_in_a_history(make):
    """Of a method that was made to step nowhere: no division by zero, in values or gradients."""

    def field(t, x):
        return wave(t.unsqueeze(-1), x)

    method = make()
    x, t = torch.ones(2, 1, dtype=D, requires_grad=True), torch.zeros(2, dtype=D, requires_grad=True)
    carry, now, ends = method.init(field, t, x, None), t, [0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    state = x
    for end in ends:
        then = torch.stack([t[0] + end, t[1] + 2 * end])
        step = method.step(field, now, then, state, carry)
        state, carry, now = step.x, step.carry, then
    gradients = torch.autograd.grad(state.sum(), (x, t))
    assert all(torch.isfinite(g).all() for g in (*gradients, state))
    expected = odeint(wave, torch.ones(1, dtype=D), [0.0, 0.7], rtol=1e-9, atol=1e-9).x[-1]
    torch.testing.assert_close(state[0], expected, rtol=0, atol=1e-4)


@each_method
def test_a_sample_that_starts_asks_nothing_of_another(make):
    """The first jumps and starts again; the second has no field then but where its own steps end."""

    def f(t, x, rate):
        between = (20 * t - (20 * t).round()).abs() > 1e-6
        lost = between & (t > 0.4) & torch.tensor([[False], [True]])
        return torch.where(lost, torch.nan, rate) * x

    rate, x0 = torch.ones((), dtype=D, requires_grad=True), torch.tensor([[1.0], [0.1]], dtype=D)
    event = Event(lambda t, x, rate: x[:, 0] - 1.87, jump=lambda t, x, rate: x - 1)
    sol = odeint(f, x0, [0.0, 1.0], args=(rate,), solver=make(), step_size=0.05, stepping="per_sample", events=event)
    assert sol.stats.n_accepted.tolist() == [21, 20]
    torch.testing.assert_close(
        sol.x[-1], x0 * math.e - torch.tensor([[math.e / 1.87], [0.0]], dtype=D), rtol=1e-5, atol=0
    )
    (gradient,) = torch.autograd.grad(sol.x[-1, 1], rate)
    assert gradient.item() == pytest.approx(0.1 * math.e, rel=1e-4)


@each_method
def test_a_sample_that_starts_does_not_extrapolate(make):
    """Behind its jump the first has no field where Euler's step would lead, though the second goes on."""

    def f(t, x, rate):
        lost = (t > 1.61) & (x > 0.3) & (x < 0.63)
        return torch.where(lost, torch.nan, -rate) * x

    rate, x0 = torch.ones((), dtype=D, requires_grad=True), torch.tensor([[1.0], [-1.0]], dtype=D)
    event = Event(lambda t, x, rate: x[:, 0] - 0.2, jump=lambda t, x, rate: x + 0.8, direction=-1)
    sol = odeint(f, x0, [0.0, 2.0], args=(rate,), solver=make(), step_size=0.5, stepping="per_sample", events=event)
    assert sol.events[0].count.tolist() == [1, 0]
    assert torch.isfinite(torch.autograd.grad(sol.x.sum(), rate)[0])


@each_method
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_two_pieces_are_one_solve(make, reverse, stepping, counted):
    """History goes on over the seam."""
    t = torch.linspace(0, 3, 13, dtype=D)
    t, x0 = (t.flip(0) if reverse else t), torch.tensor([[1.0], [0.2]], dtype=D)
    options = {"solver": make(), "stepping": stepping, "controller": FixedStep()}
    f = counted(wave)
    whole = odeint(f, x0, t, **options)
    evals, f.times[:] = f.calls, []
    first = odeint(f, x0, t[:6], **options)
    second = first.resume(t[5:])
    assert torch.equal(torch.cat([first.x, second.x[1:]]), whole.x)
    assert f.calls == evals


@each_method
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_jumps_of_state_and_field(make, stepping):
    """History from before a jump would leave an error of order 1."""
    x0 = torch.tensor([[1.0], [1.3]], dtype=D)
    event = Event(lambda t, x: (x - 2.0).squeeze(-1), jump=lambda t, x: 0.5 * x)

    def jumpy(t, x):
        return torch.where(t < 0.37, x, 2 * x)

    def error(step_size):
        options = {"solver": make(), "stepping": stepping, "step_size": step_size}
        if stepping == "joint":
            options["controller"] = StopAt([0.37], jumps=True, controller=FixedStep())
            found = odeint(jumpy, x0, [0.0, 1.0], **options).x[-1]
            expected = x0 * math.exp(0.37 + 2 * 0.63)
        else:
            found = odeint(lambda t, x: x, x0, [0.0, 1.0], events=event, **options).x[-1]
            expected = 0.5 * x0 * math.e
        return (found - expected).abs().max().item()

    coarse, fine = error(0.025), error(0.0125)
    assert coarse < 1e-4
    assert math.log2(coarse / fine) > 3.3


def test_the_bits_of_a_sample_do_not_depend_on_its_place():
    x0 = torch.tensor([[1.0, 0.3], [0.2, -0.5], [2.0, 0.1], [0.4, 0.4]], dtype=D)
    t = torch.tensor([[0.0, 1.0, 0.5, 0.0], [2.0, 0.2, 2.5, 0.3]], dtype=D)
    rate, order = torch.tensor([1.0, 20.0, 5.0, 1.0], dtype=D), torch.tensor([2, 3, 0, 1])
    event = Event(lambda t, x, rate: x[:, 0] - 1.2, jump=lambda t, x, rate: x - 1)

    def solve(rows, **options):
        with torch.no_grad():
            return odeint(lambda t, x, rate: torch.cos(rate[:, None] * t) * torch.sin(3 * x), x0[rows], t[:, rows],
                          args=(PerSample(rate[rows]),), solver="adams_moulton", stepping="per_sample", rtol=1e-5,
                          **options)  # fmt: skip

    for options in ({}, {"events": event}):
        straight, mixed = solve(torch.arange(4), **options), solve(order, **options)
        assert torch.equal(mixed.x, straight.x[:, order])
        assert torch.equal(mixed.stats.n_rejected, straight.stats.n_rejected[order])
        assert torch.equal(solve(order, compact=True, **options).x, mixed.x)
    assert straight.stats.n_rejected.sum() > 0


@each_method
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_gradients_against_finite_differences(make, stepping):
    """To the start and all times, on a grid of these, so that the coefficients depend on them."""

    def solve(x0, t):
        return odeint(wave, x0, t, solver=make(), controller=FixedStep(), stepping=stepping).x.sin().sum()

    x0 = torch.tensor([[1.0], [0.2]], dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 0.1, 0.25, 0.33, 0.5, 0.62, 0.7, 0.9], dtype=D, requires_grad=True)
    found = torch.autograd.grad(solve(x0, t), (x0, t))
    h = 1e-6
    for i, (value, gradient) in enumerate(zip((x0, t), found, strict=True)):
        for j in range(len(value)):
            moved = [[v.detach().clone() for v in (x0, t)] for _ in range(2)]
            moved[0][i][j] += h
            moved[1][i][j] -= h
            up, down = (solve(*values).item() for values in moved)
            assert gradient[j].sum().item() == pytest.approx((up - down) / (2 * h), abs=1e-8)


@each_method
def test_vmap_and_forward_mode(make):
    x0 = torch.tensor([[1.0, 0.3], [0.2, -0.5]], dtype=D)

    def solve(x0):
        return odeint(wave, x0, [0.0, 0.5, 1.0], solver=make(), step_size=0.1).x[-1]

    torch.testing.assert_close(torch.func.vmap(solve)(x0), torch.stack([solve(x) for x in x0]), rtol=0, atol=1e-14)
    forward, backward = torch.func.jacfwd(solve)(x0[0]), torch.func.jacrev(solve)(x0[0])
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-12)


def test_vmap_of_adaptive_solves():
    rates = torch.tensor([1.0, 5.0, 20.0], dtype=D)

    def solve(rate):
        return odeint(lambda t, x: torch.cos(rate * t) * x, torch.ones(1, dtype=D), [0.0, 2.0],
                      solver="adams_moulton", rtol=1e-6).x[-1]  # fmt: skip

    expected = torch.exp(torch.sin(2 * rates) / rates).unsqueeze(-1)
    torch.testing.assert_close(torch.func.vmap(solve)(rates), expected, rtol=1e-4, atol=0)


@each_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(make, dtype):
    """Far from time zero, which that precision cannot tell apart from the times of the steps."""
    x0 = torch.tensor([1.0, -2.0], dtype=dtype)
    sol = odeint(lambda t, x: -1e-2 * x, x0, [1e3, 1.1e3], solver=make(), step_size=5.0)
    torch.testing.assert_close(sol.x[-1], x0 * math.exp(-1), rtol=20 * torch.finfo(dtype).eps, atol=0)


@each_method
@pytest.mark.parametrize("order", [0, 5, 2.5, "4", True])
def test_there_is_no_such_order(make, order):
    with pytest.raises(ValueError, match=r"order: got .*, expected 1 to 4; try solver='dopri8' for a higher one"):
        make(order)


def test_fixed_steps_alone():
    with pytest.raises(ValueError, match="has no error estimate"):
        odeint(wave, torch.ones(1), [0.0, 1.0], solver="adams_bashforth", rtol=1e-3, controller=PIDController())


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.parametrize(
    ("solver", "options"),
    [(partial(AdamsBashforth, 3), {"step_size": 0.05}), (AdamsMoulton, {"rtol": 1e-5, "stepping": "per_sample"})],
    ids=["bashforth", "moulton"],
)
def test_compiled(solver, options):
    """A compiled program evaluates a first step only while some problem needs one, beside the other way to step."""
    torch._dynamo.reset()
    x0, method = torch.tensor([[1.0, 0.3], [0.2, -0.5]], dtype=D), solver()

    def solve(x0, t):
        return odeint(lambda t, x: torch.cos(9 * t) * torch.sin(x), x0, t, solver=method, **options)

    t = torch.linspace(0, 2, 4, dtype=D)
    with torch.no_grad():
        expected = solve(x0, t)
        found = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0, t)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-11)
    assert torch.equal(found.stats.n_accepted, expected.stats.n_accepted)
    more = found.stats.n_evals - expected.stats.n_evals
    assert 0 < more <= STEP[type(method)] * (method.order - 1) * (1 if "step_size" in options else 2)
