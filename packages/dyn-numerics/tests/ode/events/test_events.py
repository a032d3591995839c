"""When events happen, in which order, and what becomes of the solve."""

import math

import pytest
import torch

from dyn_numerics import Event, EventError, PIDController, Save, Status, odeint

D = torch.float64
STEPPINGS = pytest.mark.parametrize("stepping", ["joint", "per_sample"])


def decay(t, x):
    return -x


def turning(t, x):
    return torch.stack([x[..., 1], -x[..., 0]], dim=-1)


def ones(stepping, *shape):
    return torch.ones(1, *shape, dtype=D) if stepping == "per_sample" else torch.ones(*shape, dtype=D)


@STEPPINGS
def test_a_terminal_event_ends_the_solve(stepping):
    event = Event(lambda t, x: x[..., 0] - 0.5)
    sol = odeint(
        decay, ones(stepping, 1), [0.0, 0.3, 0.6, 0.9], events=event, stepping=stepping, rtol=1e-10, atol=1e-10
    )
    assert (sol.status if stepping == "joint" else sol.status[0]) is Status.EVENT
    assert sol.events[0].t.item() == pytest.approx(math.log(2), abs=1e-9)
    assert sol.events[0].x.item() == pytest.approx(0.5, abs=1e-15)
    assert torch.equal(sol.events[0].x, sol.events[0].x_after)
    assert sol.x[2].item() == pytest.approx(math.exp(-0.6), abs=1e-9)
    assert sol.x[3].isnan().all()
    assert sol.t_reached.item() == sol.events[0].t.item()
    assert sol.raise_if_failed() is sol


@STEPPINGS
def test_an_event_that_is_only_noted_changes_nothing(stepping):
    x0, t = ones(stepping, 2), torch.linspace(0, 9, 10, dtype=D)
    plain = odeint(turning, x0, t, stepping=stepping)
    noted = odeint(turning, x0, t, stepping=stepping, events=Event(lambda t, x: x[..., 0], terminal=False))
    assert torch.equal(plain.x, noted.x)
    assert str(plain.stats) == str(noted.stats)
    found = noted.events[0]
    assert found.count.item() == 3
    rough = torch.tensor([0.75, 1.75, 2.75], dtype=D) * math.pi
    torch.testing.assert_close(found.t.reshape(-1), rough, rtol=1e-2, atol=0)
    assert found.x[..., 0].abs().max() < 1e-14


@pytest.mark.parametrize(("direction", "expected"), [(0, [1, 2, 3]), (1, [2]), (-1, [1, 3])])
def test_direction(direction, expected):
    event = Event(lambda t, x: torch.sin(math.pi * t), terminal=False, direction=direction)
    sol = odeint(decay, torch.ones(1, dtype=D), [0.5, 3.5], events=event, controller=PIDController(max_step=0.4))
    torch.testing.assert_close(sol.events[0].t, torch.tensor(expected, dtype=D), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("direction", "expected"), [(0, [3, 2, 1]), (1, [3, 1]), (-1, [2])])
def test_direction_is_that_of_the_solve(direction, expected):
    event = Event(lambda t, x: torch.sin(math.pi * t), terminal=False, direction=direction)
    sol = odeint(decay, torch.ones(1, dtype=D), [3.5, 0.5], events=event, controller=PIDController(max_step=0.4))
    torch.testing.assert_close(sol.events[0].t, torch.tensor(expected, dtype=D), rtol=0, atol=1e-14)


@STEPPINGS
@pytest.mark.parametrize("start", [0.0, 2 * math.pi])
def test_zero_at_the_start_does_not_happen(start, stepping):
    """Even if rounding makes it a number that is not quite zero, as sin(2 pi)."""
    event = Event(lambda t, x: torch.sin(t))
    sol = odeint(decay, ones(stepping, 1), [start, start + 4.0], events=event, stepping=stepping)
    assert sol.events[0].t.item() == pytest.approx(start + math.pi, abs=1e-14)


def test_zero_from_the_start_on_never_happens():
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 4.0], events=Event(lambda t, x: 0 * x[0]))
    assert sol.status is Status.SUCCESS
    assert sol.events[0].count == 0
    assert sol.events[0].t.shape == (0,)
    assert sol.events[0].x.shape == (0, 1)


def test_zero_at_the_start_and_left_later():
    event = Event(lambda t, x: (t - 1).clamp(min=0) * (t - 2))
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 4.0], events=event, controller=PIDController(max_step=0.3))
    assert sol.events[0].t.item() == pytest.approx(2.0, abs=1e-14)


def test_going_on_from_an_event():
    """The state at an event starts another solve, in which the same event has not just happened."""
    event = Event(lambda t, x: x[..., 0])
    x, t = torch.tensor([0.0, 1.0], dtype=D), 0.0
    for k in range(1, 5):
        sol = odeint(turning, x, [t, t + 10], events=event, rtol=1e-10, atol=1e-10)
        x, t = sol.events[0].x[0], sol.events[0].t.item()
        assert t == pytest.approx(k * math.pi, abs=1e-8)


@STEPPINGS
def test_two_events_in_one_step(stepping):
    """Earliest first, whatever their order; after one that ends the solve there is no other."""
    late, early = Event(lambda t, x: t - 0.3), Event(lambda t, x: t - 0.2)
    seen = odeint(decay, ones(stepping, 1), [0.0, 1.0], events=[late, early], stepping=stepping, solver="rk4")
    assert [record.count.item() for record in seen.events] == [0, 1]
    assert seen.events[1].t.item() == pytest.approx(0.2, abs=1e-15)
    noted = [Event(lambda t, x: t - 0.3, terminal=False), Event(lambda t, x: t - 0.2, terminal=False)]
    seen = odeint(decay, ones(stepping, 1), [0.0, 1.0], events=noted, stepping=stepping, solver="rk4")
    assert [record.t.item() for record in seen.events] == pytest.approx([0.3, 0.2], abs=1e-15)
    assert seen.stats.n_steps == 1
    mixed = [noted[0], Event(lambda t, x: t - 0.25), noted[1]]
    seen = odeint(decay, ones(stepping, 1), [0.0, 1.0], events=mixed, stepping=stepping, solver="rk4")
    assert [record.count.item() for record in seen.events] == [0, 1, 1]


@STEPPINGS
def test_two_jumps_in_one_step(stepping):
    double, add = (lambda t, x: 2 * x), (lambda t, x: x + 1)

    def solve(*events):
        return odeint(lambda t, x: 0 * x, ones(stepping, 1), [0.0, 1.0], events=events, stepping=stepping, solver="rk4")

    def at(time, jump, scale=1.0):
        return Event(lambda t, x: scale * (t - time), jump=jump)

    assert solve(at(0.2, double), at(0.3, add)).x[-1].item() == 3
    assert solve(at(0.3, double), at(0.2, add)).x[-1].item() == 4
    # At one time, up to rounding: in the order in which they are given.
    assert solve(at(0.3, double), at(0.3, add, 3)).x[-1].item() == 3
    assert solve(at(0.3, add, 3), at(0.3, double)).x[-1].item() == 4
    seen = solve(at(0.3, add, 3), at(0.3, double))
    assert [(r.x.item(), r.x_after.item()) for r in seen.events] == [(1, 2), (2, 4)]


def test_a_jump_that_moves_another_condition_across_zero_is_no_event():
    raised = Event(lambda t, x: t - 0.5, jump=lambda t, x: x + 10)
    level = Event(lambda t, x: x[0] - 5, terminal=False)
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 3.0], events=[raised, level], rtol=1e-10, atol=1e-10)
    expected = 0.5 + math.log((10 + math.exp(-0.5)) / 5)
    assert sol.events[1].t.tolist() == pytest.approx([expected], abs=1e-8)  # when it falls back, not when it is raised


def test_a_jump_at_the_very_end_is_not_made():
    event = Event(lambda t, x: t - 1.0, jump=lambda t, x: 10 + x)
    sol = odeint(lambda t, x: 0 * x, torch.ones(1, dtype=D), [0.0, 1.0], events=event)
    assert (sol.x[-1].item(), sol.events[0].count.item(), sol.status) == (1.0, 1, Status.SUCCESS)


def test_an_output_at_a_jump_is_the_state_before():
    event = Event(lambda t, x: t - 0.5, jump=lambda t, x: 10 + x)
    for options in ({}, {"solver": "rk4"}):
        sol = odeint(lambda t, x: 0 * x, torch.ones(1, dtype=D), [0.0, 0.5, 1.0], events=event, **options)
        assert sol.x[:, 0].tolist() == [1, 1, 11]


def test_a_switched_system():
    """A thermostat: its period is ln((k - low) / (k - high)) / a + ln(high / low) / a."""
    a, low, high, k = 0.7, 18.0, 22.0, 30.0

    def heat(t, s):
        return torch.stack([a * (k * s[..., 1] - s[..., 0]), 0 * s[..., 1]], dim=-1)

    def switch(to):
        return lambda t, s: torch.stack([s[..., 0], torch.full_like(s[..., 1], to)], dim=-1)

    events = [
        Event(lambda t, s: s[..., 0] - high, direction=1, jump=switch(0.0)),
        Event(lambda t, s: s[..., 0] - low, direction=-1, jump=switch(1.0)),
    ]
    start = torch.tensor([[20.0, 1.0], [19.0, 0.0], [40.0, 0.0]], dtype=D)
    sol = odeint(heat, start, [0.0, 5.0], events=events, stepping="per_sample", rtol=1e-10, atol=1e-10)
    period = math.log((k - low) / (k - high)) / a + math.log(high / low) / a
    for record in sol.events:
        gaps = record.t.diff(dim=0)
        assert gaps.shape[0] >= 5
        torch.testing.assert_close(gaps[~gaps.isnan()], torch.full_like(gaps[~gaps.isnan()], period), rtol=1e-9, atol=0)
    joint = odeint(heat, start[0], [0.0, 5.0], events=events, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(joint.events[0].t, sol.events[0].t[: joint.events[0].count, 0], rtol=1e-9, atol=0)


@STEPPINGS
def test_a_condition_that_is_nan(stepping):
    event = Event(lambda t, x: torch.log(x[..., 0] - 0.5) + 100)
    sol = odeint(decay, ones(stepping, 1), [0.0, 0.3, 5.0], events=event, stepping=stepping, throw=False)
    assert (sol.status if stepping == "joint" else sol.status[0]) is Status.CONDITION_NOT_FINITE
    assert sol.x[1].isfinite().all()
    assert sol.x[2].isnan().all()
    with pytest.raises(EventError, match="The condition of an event was NaN"):
        sol.raise_if_failed()


def test_neighbours_of_a_condition_that_is_nan():
    event = Event(lambda t, x: torch.log(x[..., 0] - 0.5) + 100)
    x0 = torch.tensor([[1.0], [500.0]], dtype=D, requires_grad=True)
    sol = odeint(decay, x0, [0.0, 2.0], events=event, stepping="per_sample", throw=False, rtol=1e-9, atol=1e-9)
    assert [status.name for status in sol.status] == ["CONDITION_NOT_FINITE", "SUCCESS"]
    (gradient,) = torch.autograd.grad(sol.x[-1, 1].sum(), x0)
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [math.exp(-2)]], dtype=D), rtol=1e-7, atol=0)


def test_nan_beyond_an_event_that_ends_the_step():
    events = [Event(lambda t, x: x[0] - 0.5), Event(lambda t, x: torch.sqrt(x[0] - 0.4), terminal=False)]
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 5.0], events=events, solver="dopri8")
    assert sol.status is Status.EVENT


def test_an_infinite_condition_has_a_sign():
    event = Event(lambda t, x: torch.where(t < 0.75, math.inf, -math.inf))
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 5.0], events=event)
    assert sol.events[0].t.item() == pytest.approx(0.75, abs=1e-14)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.complex128, 1e-9)])
def test_dtypes(dtype, atol):
    event = Event(lambda t, x: x.abs()[0] - 0.5)
    sol = odeint(
        decay, torch.ones(1, dtype=dtype), [0.0, 2.0], events=event, rtol=1e-3 if dtype.itemsize == 2 else 1e-7
    )
    assert sol.events[0].x.dtype is dtype
    assert sol.events[0].t.dtype is torch.float64
    assert sol.events[0].t.item() == pytest.approx(math.log(2), abs=max(atol, 1e-6))


def test_extra_arguments():
    sol = odeint(
        lambda t, x, a, b: -a * x,
        torch.ones(1, dtype=D),
        [0.0, 5.0],
        args=(2.0, 0.25),
        rtol=1e-9,
        atol=1e-9,
        events=Event(lambda t, x, a, b: x[0] - b),
    )
    assert sol.events[0].t.item() == pytest.approx(math.log(4) / 2, abs=1e-8)


def test_without_steps():
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 0.0], events=Event(lambda t, x: x[0] - 1))
    assert sol.events[0].count == 0
    sol = odeint(
        decay, torch.ones(0, 1, dtype=D), [0.0, 1.0], events=Event(lambda t, x: x[:, 0]), stepping="per_sample"
    )
    assert sol.events[0].t.shape == (0, 0)


def test_one_host_read_more_for_each_condition(host_reads):
    x0, event = torch.ones(2, dtype=D), Event(lambda t, x: x[0] + 10)
    counts = []
    for events in ((), event):
        host_reads.clear()
        with torch.no_grad():
            steps = int(odeint(turning, x0, [0.0, 5.0], events=events).stats.n_accepted)
        counts.append(len(host_reads))
    assert counts[1] - counts[0] == steps + 2  # and two for the sign at the start


@STEPPINGS
def test_internals_of_a_step_that_is_cut(stepping):
    event = Event(lambda t, x: x[..., 0] - 0.5)
    sol = odeint(decay, ones(stepping, 1), [0.0, 2.0], events=event, stepping=stepping, save=Save(internals=True))
    assert sol.internals.dt.sum().item() == pytest.approx(sol.events[0].t.item(), abs=1e-15)


@STEPPINGS
def test_events_at_one_time_but_for_rounding(stepping):
    """Neither is lost, whichever comes first in numbers."""
    for time in torch.linspace(0.11, 0.93, 40, dtype=D).tolist():
        events = [
            Event(lambda t, x, time=time: torch.exp(t) - math.exp(time), jump=lambda t, x: x + 1),
            Event(lambda t, x, time=time: t**3 - time**3, jump=lambda t, x: 2 * x),
        ]
        for order, expected in ((events, 4), (events[::-1], 3)):
            sol = odeint(
                lambda t, x: 0 * x, ones(stepping, 1), [0.0, 1.0], events=order, stepping=stepping, solver="rk4"
            )
            assert sol.x[-1].item() == expected


@STEPPINGS
def test_nan_beyond_a_jump(stepping):
    """What a condition is beyond the end of a step that a jump cuts does not count."""
    reset = Event(lambda t, x: x[..., 0] - 0.5, jump=lambda t, x: x + 1)
    other = Event(lambda t, x: torch.sqrt(x[..., 0] - 0.4999), terminal=False)
    x0 = ones(stepping, 1)
    sol = odeint(decay, x0, [0.0, 2.0], events=[reset, other], stepping=stepping, solver="rk4", step_size=0.25)
    assert sol.x.isfinite().all()
    assert sol.events[0].count.item() == 2


@STEPPINGS
@pytest.mark.parametrize("options", [{}, {"solver": "rk4"}, {"solver": "vern7"}])
def test_functions_of_the_state_in_steps_that_are_cut(stepping, options):
    event = Event(lambda t, x: x[..., 0] - 0.5, jump=lambda t, x: x + 1)
    x0, t = ones(stepping, 2).requires_grad_(), torch.linspace(0, 3, 31, dtype=D)
    whole = odeint(decay, x0, t, events=event, stepping=stepping, **options)
    kept = odeint(decay, x0, t, events=event, stepping=stepping, save=Save(fn=lambda t, x: x[..., 0]), **options)
    torch.testing.assert_close(kept.x, whole.x[..., 0], rtol=0, atol=1e-14)
    found, expected = (torch.autograd.grad(x[17].sum(), x0)[0] for x in (kept.x, whole.x[..., 0]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@STEPPINGS
@pytest.mark.parametrize("options", [{"solver": "rk4", "step_size": 0.1}, {"rtol": 1e-10, "atol": 1e-10}])
def test_resume(stepping, options):
    """A solve in two parts meets the events of one: also one that it has just met, and counts on."""
    event = Event(lambda t, x: x[..., 0] - 0.5, jump=lambda t, x: x + 1, max_jumps=3)
    x0 = ones(stepping, 1)
    whole = odeint(decay, x0, [0.0, 3.5], events=event, stepping=stepping, **options)
    first = odeint(decay, x0, [0.0, 0.7], events=event, stepping=stepping, **options)
    second = first.resume([0.7, 3.5])
    times = torch.cat([first.events[0].t, second.events[0].t])
    assert [len(first.events[0].t), len(second.events[0].t)] == [1, 2]
    torch.testing.assert_close(times, whole.events[0].t, rtol=0, atol=1e-8 if "rtol" in options else 1e-14)
    torch.testing.assert_close(second.x[-1], whole.x[-1], rtol=0, atol=1e-8 if "rtol" in options else 1e-14)
    with pytest.raises(EventError):
        second.resume([3.5, 10.0])


def test_resume_of_samples_that_have_ended():
    event = Event(lambda t, x: x[..., 0] - 0.5)
    x0 = torch.tensor([[1.0], [10.0]], dtype=D)
    first = odeint(decay, x0, [0.0, 1.0], events=event, stepping="per_sample")
    second = first.resume([1.0, 2.0])
    assert second.status == [Status.EVENT, Status.SUCCESS]
    assert second.x[-1, 0].isnan().all()
    assert second.x[-1, 1].item() == pytest.approx(10 * math.exp(-2), rel=1e-3)
    assert second.t_reached[0] == first.t_reached[0]


def test_two_host_reads_more_for_all_conditions_of_samples(host_reads):
    x0 = torch.ones(3, 2, dtype=D)
    counts = []
    for n in (0, 1, 3):
        host_reads.clear()
        with torch.no_grad():
            events = [Event(lambda t, x: x[..., 0] + 10)] * n
            steps = int(odeint(turning, x0, [0.0, 5.0], events=events, stepping="per_sample").stats.n_steps.max())
        counts.append(len(host_reads))
    assert counts[1] - counts[0] == 2 * steps
    assert counts[2] == counts[1]


@STEPPINGS
@pytest.mark.parametrize(("dtype", "level"), [(torch.float32, 0.95), (torch.float64, 0.999), (torch.float64, 1 - 1e-4)])
def test_soon_after_the_start(stepping, dtype, level):
    """A condition that is not zero at the start has a sign there, however soon it crosses."""
    event = Event(lambda t, x: x[..., 0] - level)
    x0 = ones(stepping, 1).to(dtype)
    sol = odeint(lambda t, x: -torch.ones_like(x), x0, [0.0, 10.0], solver="rk4", events=event, stepping=stepping)
    assert sol.events[0].t.item() == pytest.approx(1 - level, rel=2e-2 if dtype == torch.float32 else 1e-10)


@STEPPINGS
@pytest.mark.parametrize("seed", range(20))
def test_events_at_one_time_but_for_rounding_of_a_short_dtype(stepping, seed):
    time = 0.11 + 0.04 * seed
    events = [
        Event(lambda t, x: torch.exp(t) - math.exp(time), jump=lambda t, x: x + 1),
        Event(lambda t, x: t**3 - time**3, jump=lambda t, x: 2 * x),
        Event(lambda t, x: 3 * (t - time), terminal=False),
    ]
    x0 = ones(stepping, 1).float()
    sol = odeint(lambda t, x: 0 * x, x0, [0.0, 1.0], events=events, stepping=stepping, solver="rk4")
    assert [record.count.item() for record in sol.events] == [1, 1, 1]
    assert sol.x[-1].item() in (3, 4)


@STEPPINGS
def test_a_zero_before_the_end_of_a_step_that_is_cut(stepping):
    """x = t - t^2 passes 0.2 at 0.276 and again at 0.724, where the jump at 0.5 has changed it: once, and in its time."""
    jump = Event(lambda t, x: t - 0.5, jump=lambda t, x: x + 10)
    noted = Event(lambda t, x: x[..., 0] - 0.2, terminal=False)
    x0 = 0 * ones(stepping, 1)
    sol = odeint(
        lambda t, x: (1 - 2 * t) * torch.ones_like(x),
        x0,
        [0.0, 1.0],
        events=[jump, noted],
        stepping=stepping,
        solver="rk4",
    )
    assert [record.count.item() for record in sol.events] == [1, 1]
    assert sol.events[1].t.item() == pytest.approx((1 - math.sqrt(0.2)) / 2, abs=1e-12)


@STEPPINGS
def test_a_condition_that_is_nan_where_the_zero_is_sought(stepping):
    event = Event(lambda t, x: torch.where((t - 0.5).abs() < 0.1, math.nan, 0.3 - t))
    sol = odeint(decay, ones(stepping, 1), [0.0, 1.0], events=event, stepping=stepping, solver="rk4", throw=False)
    assert (sol.status if stepping == "joint" else sol.status[0]) is Status.CONDITION_NOT_FINITE
    assert sol.events[0].count.item() == 0


@STEPPINGS
def test_a_condition_must_leave_the_state_alone(stepping):
    def condition(t, x):
        x.sub_(0.5)
        return x[..., 0]

    x0 = ones(stepping, 1)
    with pytest.raises(ValueError, match=r"events\[0\].condition: changed the state x in place"):
        odeint(decay, x0, [0.0, 1.0], events=Event(condition, terminal=False), stepping=stepping)


def test_jumps_at_large_times():
    """A millisecond apart at 1e9, where times are rounded to 1e-7."""
    event = Event(lambda t, x: x[0], direction=-1, jump=lambda t, x: x + 1)
    sol = odeint(lambda t, x: -1000 * torch.ones_like(x), torch.ones(1, dtype=D), [1e9, 1e9 + 0.02], events=event)
    assert sol.events[0].count == 19 or sol.events[0].count == 20


def test_jumps_and_a_least_step():
    """The step after a jump that soon follows another is no shorter than steps may be: at t = 1e-4 and 2e-4, then never."""

    def condition(t, s):
        return torch.where(s[1] < 2, s[0] - 1 + 1e-4 * (1 + s[1]), 1.0)

    event = Event(condition, jump=lambda t, s: torch.stack([s[0], s[1] + 1]))
    sol = odeint(
        lambda t, s: torch.stack([-torch.ones_like(s[0]), 0 * s[1]]),
        torch.tensor([1.0, 0.0], dtype=D),
        [0.0, 1.0],
        events=event,
        controller=PIDController(min_step=1e-3),
    )
    assert sol.status is Status.SUCCESS
    assert sol.events[0].t.tolist() == pytest.approx([1e-4, 2e-4], abs=1e-14)


def test_a_jump_that_is_not_made_does_not_count():
    event = Event(lambda t, x: (t - 1) * (t - 2), jump=lambda t, x: x, max_jumps=1)
    sol = odeint(decay, torch.ones(1, dtype=D), [0.0, 2.0], events=event, controller=PIDController(max_step=0.7))
    assert sol.status is Status.SUCCESS


def test_records_of_lanes_have_no_holes():
    def times(x0):
        event = Event(lambda t, x: x[0], terminal=False)
        return odeint(turning, x0, [0.0, 10.0], events=event).events[0].t

    x0 = torch.tensor([[1.0, 0.0], [0.2, 1.0], [-1.0, 0.3]], dtype=D)
    for found, lane in zip(torch.func.vmap(times)(x0), x0, strict=True):
        expected = times(lane)
        torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-2, atol=0)
        assert found[len(expected) :].isnan().all()


@STEPPINGS
def test_nan_where_a_jump_cuts_the_step_of_another_event(stepping):
    """It is no sign: the other event happens in its own time."""
    jump = Event(lambda t, x: t - 0.5, jump=lambda t, x: x + 1)
    later = Event(lambda t, x: torch.where((t - 0.5).abs() < 1e-9, math.nan, 0.8 - t), terminal=False)
    x0 = ones(stepping, 1)
    sol = odeint(lambda t, x: 0 * x, x0, [0.0, 1.0], events=[jump, later], stepping=stepping, solver="rk4")
    assert sol.events[1].t.reshape(-1).tolist() == pytest.approx([0.8], abs=1e-14)
