"""A ball that bounces: exact times and states, and their gradients, in every way of stepping."""

import math

import pytest
import torch

from dyn_numerics import Event, Save, Status, odeint

D = torch.float64
G, R = 9.81, 0.8


def fall(t, x, g=G):
    return torch.stack([x[..., 1], -g + 0 * x[..., 1]], dim=-1)


def bounce(t, x, g=G, r=R):
    return torch.stack([x[..., 0], -r * x[..., 1]], dim=-1)


def height(t, x, *args):
    return x[..., 0]


GROUND = Event(height, direction=-1, jump=bounce)


def at_rest(h):
    return torch.stack([h, torch.zeros_like(h)], dim=-1)


def exact_times(h, n, g=G, r=R):
    """When the ball bounces that is dropped from the height h, `[n, ...]`."""
    first = (2 * h / g) ** 0.5
    return torch.stack([first * (1 + 2 * sum((r**j for j in range(1, k + 1)), 0.0 * first)) for k in range(n)])


def exact_state(h, t, bounces, g=G, r=R):
    """Height and velocity at a time after so many bounces."""
    speed = r**bounces * (2 * g * h) ** 0.5
    s = t - exact_times(h, bounces, g, r)[-1]
    return torch.stack([speed * s - g * s * s / 2, speed - g * s], dim=-1)


@pytest.fixture
def heights():
    return torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=D)


COUNTS = [3, 2, 1, 5]


@pytest.mark.parametrize(
    "options", [{"solver": "tsit5"}, {"solver": "bosh3"}, {"solver": "dopri8"}, {"solver": "rk4", "step_size": 0.05}]
)
def test_the_times_are_exact(options, heights):
    """Over parabolas every method is, and its dense output."""
    sol = odeint(fall, at_rest(heights[0]), [0.0, 2.0], events=GROUND, **options)
    (record,) = sol.events
    torch.testing.assert_close(record.t, exact_times(heights[0], 3), rtol=0, atol=1e-12)
    assert record.count == 3
    assert record.x[:, 0].abs().max() < 1e-14
    assert torch.equal(record.x_after, bounce(0, record.x))
    torch.testing.assert_close(sol.x[-1], exact_state(heights[0], 2.0, 3), rtol=0, atol=1e-11)
    assert sol.status is Status.SUCCESS


def test_on_a_grid_of_outputs(heights):
    t = torch.linspace(0, 2, 41, dtype=D)
    sol = odeint(fall, at_rest(heights[0]), t, events=GROUND, solver="rk4")
    torch.testing.assert_close(sol.events[0].t, exact_times(heights[0], 3), rtol=0, atol=1e-12)
    for i, bounces in ((20, 1), (30, 2), (38, 3), (40, 3)):
        torch.testing.assert_close(sol.x[i], exact_state(heights[0], t[i], bounces), rtol=0, atol=1e-12)
    assert sol.stats.n_steps == 40 + 3


@pytest.mark.parametrize("compact", [False, True])
def test_every_sample_bounces_in_its_own_time(compact, heights):
    t = torch.linspace(0, 2, 21, dtype=D)
    sol = odeint(fall, at_rest(heights), t, events=GROUND, stepping="per_sample", compact=compact)
    (record,) = sol.events
    assert record.count.tolist() == COUNTS
    assert record.t.shape == (5, 4)
    for i, n in enumerate(COUNTS):
        torch.testing.assert_close(record.t[:n, i], exact_times(heights[i], n), rtol=0, atol=1e-12)
        assert record.t[n:, i].isnan().all()
        assert record.x[n:, i].isnan().all()
        torch.testing.assert_close(sol.x[-1, i], exact_state(heights[i], 2.0, n), rtol=0, atol=1e-11)


def test_a_sample_is_what_it_is_alone(heights):
    """Bit for bit, in any order and any part of the batch."""
    t = torch.linspace(0, 2, 21, dtype=D)

    def solve(h):
        return odeint(fall, at_rest(h), t, events=GROUND, stepping="per_sample")

    whole, order = solve(heights), torch.tensor([2, 0, 3, 1])
    turned, part = solve(heights[order]), solve(heights[1:3])
    assert torch.equal(turned.x, whole.x[:, order])
    assert torch.equal(turned.events[0].t.nan_to_num(), whole.events[0].t[:, order].nan_to_num())
    assert torch.equal(part.x, whole.x[:, 1:3])


def test_backward_in_time(heights):
    sol = odeint(fall, at_rest(heights[0]), [0.0, -0.4], events=GROUND)
    assert sol.events[0].count == 0
    up = torch.tensor([1.0, -1.0], dtype=D)  # seen backward it rises, and falls after 2/g
    sol = odeint(fall, up, [0.0, -1.0], events=Event(height, direction=-1))
    expected = -(1 + math.sqrt(1 + 2 * G)) / G
    assert sol.events[0].t.item() == pytest.approx(expected, abs=1e-13)
    assert sol.status is Status.EVENT


def test_pytrees(heights):
    def f(t, s):
        return {"q": s["v"], "v": torch.full_like(s["v"], -G)}

    event = Event(lambda t, s: s["q"], direction=-1, jump=lambda t, s: {"q": s["q"], "v": -R * s["v"]})
    sol = odeint(f, {"q": heights, "v": 0 * heights}, [0.0, 2.0], events=event, stepping="per_sample")
    assert sol.events[0].count.tolist() == COUNTS
    torch.testing.assert_close(sol.events[0].x_after["v"], -R * sol.events[0].x["v"], equal_nan=True)
    torch.testing.assert_close(sol.x["q"][-1, 0], exact_state(heights[0], 2.0, 3)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_the_jump_may_be_made_in_place(stepping, heights):
    def turn(t, x):
        x[..., 1] *= -R
        return x

    event, x0 = (
        Event(height, direction=-1, jump=turn),
        at_rest(heights[:1]) if stepping == "per_sample" else at_rest(heights[0]),
    )
    sol = odeint(fall, x0, [0.0, 2.0], events=event, stepping=stepping)
    torch.testing.assert_close(sol.x[-1].reshape(2), exact_state(heights[0], 2.0, 3), rtol=0, atol=1e-12)
    assert (sol.events[0].x[..., 1] < 0).all()


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(
    "options", [{}, {"solver": "vern7"}, {"solver": "rk4", "step_size": 0.05}], ids=["tsit5", "vern7", "rk4"]
)
def test_gradients_after_three_bounces(stepping, options, heights):
    """Of times and of the state, in start, gravity (field and condition's surroundings) and restitution (jump)."""
    h, g, r = (torch.tensor(v, dtype=D, requires_grad=True) for v in (1.0, G, R))
    x0 = at_rest(h)
    sol = odeint(
        lambda t, x: fall(t, x, g),
        x0[None] if stepping == "per_sample" else x0,
        [0.0, 1.9],
        events=Event(height, direction=-1, jump=lambda t, x: bounce(t, x, r=r)),
        stepping=stepping,
        **options,
    )
    times, state = sol.events[0].t.reshape(-1), sol.x[-1].reshape(2)
    expected_times, expected_state = exact_times(h, 3, g, r), exact_state(h, 1.9, 3, g, r)
    for found, expected in [*zip(times, expected_times, strict=True), *zip(state, expected_state, strict=True)]:
        wanted = torch.autograd.grad(expected, (h, g, r), retain_graph=True)
        got = torch.autograd.grad(found, (h, g, r), retain_graph=True, allow_unused=True)
        for a, b in zip(got, wanted, strict=True):
            assert (0.0 if a is None else a.item()) == pytest.approx(b.item(), rel=1e-9, abs=1e-11)


def test_gradients_of_a_batch(heights):
    h = heights.clone().requires_grad_()
    sol = odeint(fall, at_rest(h), [0.0, 2.0], events=GROUND, stepping="per_sample")
    (found,) = torch.autograd.grad(sol.x[-1, :, 0].sum() + sol.events[0].t.nansum(), h)
    expected = sum(exact_state(h[i], 2.0, n)[0] + exact_times(h[i], n).sum() for i, n in enumerate(COUNTS))
    torch.testing.assert_close(found, torch.autograd.grad(expected, h)[0], rtol=1e-9, atol=1e-10)


def test_gradients_to_the_times(heights):
    """The whole motion moves with its start; the end cuts it."""
    t = torch.tensor([0.0, 1.0, 1.9], dtype=D, requires_grad=True)
    sol = odeint(fall, at_rest(heights[0]), t, events=GROUND)
    (found,) = torch.autograd.grad(sol.events[0].t[2], t, retain_graph=True)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0], dtype=D), rtol=0, atol=1e-12)
    slope = exact_state(heights[0], 1.9, 3)[1]
    (found,) = torch.autograd.grad(sol.x[-1, 0], t, retain_graph=True)
    torch.testing.assert_close(found, torch.stack([-slope, 0 * slope, slope]), rtol=0, atol=1e-11)
    slope = exact_state(heights[0], 1.0, 1)[1]
    (found,) = torch.autograd.grad(sol.x[1, 0], t)
    torch.testing.assert_close(found, torch.stack([-slope, slope, 0 * slope]), rtol=0, atol=1e-11)


def test_gradients_to_the_times_of_a_grid(heights):
    """Steps between outputs move with the event that they start from, and land where the outputs are."""
    t = torch.linspace(0, 1.9, 39, dtype=D).requires_grad_()
    sol = odeint(fall, at_rest(heights[0]), t, events=GROUND, solver="rk4")
    (found,) = torch.autograd.grad(sol.x[-1, 0], t)
    slope = exact_state(heights[0], 1.9, 3)[1].item()
    assert found[0].item() == pytest.approx(-slope, abs=1e-10)
    assert found[-1].item() == pytest.approx(slope, abs=1e-10)
    assert found[1:-1].abs().max() < 1e-10


def test_transforms(heights):
    def last(h):
        return odeint(fall, at_rest(h), torch.linspace(0, 2, 5, dtype=D), events=GROUND).x[-1, 0]

    expected = torch.stack([exact_state(h, 2.0, n)[0] for h, n in zip(heights, COUNTS, strict=True)])
    torch.testing.assert_close(torch.func.vmap(last)(heights), expected, rtol=0, atol=1e-12)
    slopes = torch.stack(
        [torch.func.grad(lambda h, n=n: exact_state(h, 2.0, n)[0])(h) for h, n in zip(heights, COUNTS, strict=True)]
    )
    for derivative in (torch.func.grad, torch.func.jacfwd, torch.func.jacrev):
        torch.testing.assert_close(torch.func.vmap(derivative(last))(heights), slopes, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(derivative(last)(heights[0]), slopes[0], rtol=1e-9, atol=1e-10)


def test_what_is_saved(heights):
    x0 = at_rest(heights[0])
    steps = odeint(fall, x0, [0.0, 2.0], events=GROUND, save="steps")
    for t in exact_times(heights[0], 3):
        assert (steps.t - t).abs().min() < 1e-12
    dense = odeint(fall, x0, [0.0, 2.0], events=GROUND, save="dense")
    for t, bounces in ((0.7, 1), (1.5, 2), (1.9, 3)):
        torch.testing.assert_close(dense.dense(t), exact_state(heights[0], t, bounces), rtol=0, atol=1e-12)
        torch.testing.assert_close(dense.dense.derivative(t)[1].item(), -G, rtol=0, atol=1e-10)
    internals = odeint(fall, x0, [0.0, 2.0], events=GROUND, save=Save(internals=True)).internals
    assert internals.dt.sum().item() == pytest.approx(2.0, abs=1e-14)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_evaluations_are_counted(stepping, heights, counted):
    for grad in (False, True):
        f = counted(fall)
        x0 = at_rest(heights) if stepping == "per_sample" else at_rest(heights[0])
        sol = odeint(f, x0.requires_grad_(grad), [0.0, 2.0], events=GROUND, stepping=stepping, solver="vern7")
        assert sol.stats.n_evals == f.calls


def test_jumps_that_come_to_rest(heights):
    """Zeno: the bounces of a ball with r = 1/2 end at 3 times the time of the first fall."""
    event = Event(height, direction=-1, jump=lambda t, x: bounce(t, x, r=0.5))
    sol = odeint(fall, at_rest(heights), [0.0, 10.0], events=event, stepping="per_sample", throw=False)
    assert all(status is Status.TOO_MANY_JUMPS for status in sol.status)
    torch.testing.assert_close(sol.t_reached, 3 * (2 * heights / G) ** 0.5, rtol=1e-9, atol=0)
    assert (sol.events[0].count > 30).all()
    assert sol.events[0].x[:, :, 0].nan_to_num().abs().max() < 1e-14


def test_the_bound_on_jumps(heights):
    event = Event(height, direction=-1, jump=bounce, max_jumps=2)
    sol = odeint(fall, at_rest(heights), [0.0, 2.0], events=event, stepping="per_sample", throw=False)
    assert [status.name for status in sol.status] == ["TOO_MANY_JUMPS", "SUCCESS", "SUCCESS", "TOO_MANY_JUMPS"]
    torch.testing.assert_close(sol.t_reached[0], exact_times(heights[0], 3)[-1], rtol=0, atol=1e-12)
    assert sol.x[-1, 0].isnan().all()
    torch.testing.assert_close(sol.x[-1, 1], exact_state(heights[1], 2.0, 2), rtol=0, atol=1e-12)
    assert sol.events[0].count.tolist() == [3, 2, 1, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_on_a_device(stepping, heights):
    def solve(device):
        h = heights.to(device).requires_grad_()
        x0 = at_rest(h) if stepping == "per_sample" else at_rest(h[0])
        sol = odeint(fall, x0, torch.linspace(0, 2, 5, dtype=D, device=device), events=GROUND, stepping=stepping)
        assert sol.events[0].t.device.type == sol.events[0].x.device.type == sol.events[0].count.device.type == device
        (gradient,) = torch.autograd.grad(sol.x[-1].sum() + sol.events[0].t.nansum(), h)
        return [part.detach().cpu() for part in (sol.x, sol.events[0].t, gradient)]

    for found, expected in zip(solve("cuda"), solve("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_second_derivatives_of_an_event_time(stepping):
    """A decay reaches half at ln 2 / p; and the state some time after it, which moves with that time."""
    p = torch.tensor(1.0, dtype=D, requires_grad=True)

    def condition(t, x):
        return (x[..., 0] if stepping == "per_sample" else x[..., 0].sum()) - 0.5

    half = Event(condition, jump=lambda t, x: torch.ones_like(x))
    options = {"events": half, "stepping": stepping, "rtol": 1e-10, "atol": 1e-12}

    def derivatives(of):
        (first,) = torch.autograd.grad(of, p, create_graph=True)
        return first.item(), torch.autograd.grad(first, p, retain_graph=True)[0].item()

    sol = odeint(lambda t, x: -p * x, torch.ones(1, 1, dtype=D), [0.0, 1.2], **options)
    ln2 = math.log(2)
    assert derivatives(sol.events[0].t[0].sum()) == pytest.approx((-ln2, 2 * ln2), abs=1e-6)
    # x(1.2) = exp(-p (1.2 - ln 2 / p)) = 2 exp(-1.2 p)
    end = 2 * math.exp(-1.2)
    assert derivatives(sol.x[-1].sum()) == pytest.approx((-1.2 * end, 1.44 * end), abs=1e-6)


def test_second_derivatives_of_an_event_time_by_torch_func():
    half = Event(lambda t, x: x.sum() - 0.5)

    def time(p):
        options = {"events": half, "rtol": 1e-10, "atol": 1e-12, "throw": False}
        return odeint(lambda t, x: -p * x, torch.ones(1, dtype=D), [0.0, 1.2], **options).events[0].t[0]

    p, ln2 = torch.tensor(1.0, dtype=D), math.log(2)
    assert torch.func.grad(torch.func.grad(time))(p).item() == pytest.approx(2 * ln2, abs=1e-6)
    assert torch.func.jacfwd(torch.func.grad(time))(p).item() == pytest.approx(2 * ln2, abs=1e-6)
