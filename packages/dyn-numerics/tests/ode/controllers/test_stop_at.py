"""Times that a solve lands on, and fields that jump there."""

import copy
import math
import pickle

import pytest
import torch

from dyn_numerics import Event, FixedStep, PIDController, StopAt, odeint

D = torch.float64
FIXED = ("euler", "heun", "rk4")
STEPPINGS = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
SOLVERS = pytest.mark.parametrize("solver", ["euler", "rk4", "bosh3", "tsit5", "dopri8"])


def switched(at, left_closed):
    """x' = t before and -2 after, whichever of the two holds at the time itself."""

    def f(t, x):
        before = t <= at if left_closed else t < at
        return torch.where(before, t, -2.0).to(x.dtype) * torch.ones_like(x)

    return f


def exact(t, at):
    t = torch.as_tensor(t, dtype=D)
    return torch.where(t <= at, t**2 / 2, at**2 / 2 - 2 * (t - at))


@STEPPINGS
@pytest.mark.parametrize("solver", ["heun", "rk4", "bosh3", "tsit5", "dopri5", "vern7", "dopri8"])
@pytest.mark.parametrize("left_closed", [False, True])
def test_each_side_of_a_jump_is_its_own(stepping, solver, left_closed):
    """Whichever value the field has at the time itself. A stage on the other side would be wrong by dt / 6 and more."""
    t = torch.tensor([0.0, 0.2, 0.7, 0.9, 2.0], dtype=D)
    sol = odeint(
        switched(0.7, left_closed),
        torch.zeros(1, 1, dtype=D),
        t,
        controller=StopAt([0.7], FixedStep() if solver in FIXED else None, jumps=True),
        solver=solver,
        stepping=stepping,
    )
    torch.testing.assert_close(sol.x.reshape(-1), exact(t, 0.7), rtol=0, atol=1e-12)
    assert sol.stats.n_rejected.sum() == 0


@STEPPINGS
@pytest.mark.parametrize("left_closed", [False, True])
def test_backward_in_time(stepping, left_closed):
    t = torch.tensor([2.0, 0.9, 0.7, 0.2, 0.0], dtype=D)
    x0 = exact(2.0, 0.7).reshape(1, 1)
    sol = odeint(switched(0.7, left_closed), x0, t, controller=StopAt([0.7], jumps=True), stepping=stepping)
    torch.testing.assert_close(sol.x.reshape(-1), exact(t, 0.7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("at", [0.1, 0.7, 1.0])  # 0.1 is rounded up, 0.7 down
def test_the_sides_of_a_short_dtype(dtype, at):
    f, seen = switched(at, False), []

    def watched(t, x):
        seen.append(t.item() < torch.tensor(at, dtype=dtype).item())
        return f(t, x)

    sol = odeint(
        watched,
        torch.zeros(1, dtype=dtype),
        [0.0, at, 2.0],
        controller=StopAt([at], FixedStep(), jumps=True),
        solver="rk4",
    )
    assert seen == [True] * 5 + [False] * 4 or seen == [True] * 4 + [False] * 4
    assert sol.x[-1].item() == pytest.approx(exact(2.0, at).item(), abs=30 * torch.finfo(dtype).eps)


def test_the_last_slope_is_made_anew_beyond_the_jump(counted):
    """Its evaluation is counted; without a jump there is none."""
    for jumps, more in ((True, 1), (False, 0)):
        f = counted(lambda t, x: 0 * x)
        sol = odeint(
            f, torch.zeros(1, dtype=D), [0.0, 1.0], solver="dopri5", controller=StopAt([0.5], FixedStep(), jumps=jumps)
        )
        assert sol.stats.n_evals == f.calls == 1 + 2 * 6 + more
    f = counted(lambda t, x: 0 * x)
    ends = StopAt([0.0, 1.0], FixedStep(), jumps=True)
    assert odeint(f, torch.zeros(1, dtype=D), [0.0, 1.0], solver="dopri5", controller=ends).stats.n_evals == 1 + 6


@STEPPINGS
@SOLVERS
def test_steps_end_there(stepping, solver):
    sol = odeint(
        lambda t, x: -x,
        torch.ones(1, 1, dtype=D),
        [0.0, 1.0],
        controller=StopAt([0.35, 0.2, 5.0, -1.0], FixedStep() if solver in FIXED else None),
        solver=solver,
        stepping=stepping,
        save="steps",
    )
    ends = sol.t.reshape(-1).tolist()
    assert 0.2 in ends
    assert 0.35 in ends
    assert max(ends) == 1.0


def test_steps_after_a_stop_are_as_long_as_planned():
    plain = odeint(lambda t, x: torch.cos(t) * x, torch.ones(1, dtype=D), [0.0, 10.0], rtol=1e-8)
    stops = [k + shift for k in range(1, 10) for shift in (0, 1e-6)]  # the step between the two is short
    stopping = odeint(
        lambda t, x: torch.cos(t) * x, torch.ones(1, dtype=D), [0.0, 10.0], rtol=1e-8, controller=StopAt(stops)
    )
    assert stopping.stats.n_steps <= plain.stats.n_steps + len(stops) + 2


@STEPPINGS
def test_a_kink_costs_no_rejection(stepping):
    def f(t, x):
        return (t - 0.4).abs() * torch.ones_like(x)

    expected = (0.4**2 + 0.6**2) / 2
    counts = []
    for controller in (StopAt([0.4]), None):
        sol = odeint(
            f, torch.zeros(1, 1, dtype=D), [0.0, 1.0], controller=controller, stepping=stepping, rtol=1e-10, atol=1e-10
        )
        counts.append(int(sol.stats.n_rejected.sum()))
        assert sol.x[-1].item() == pytest.approx(expected, abs=1e-8)
    assert counts[0] == 0 < counts[1]


def test_every_sample_has_its_own():
    stops = torch.tensor([[0.3, 0.7], [0.3, 1.4]], dtype=D)  # the first has but one

    def f(t, x):
        late = (t > stops[0][:, None]).to(D) + (t > stops[1][:, None]).to(D)
        return (1 - late) * torch.ones_like(x)

    for compact in (False, True):
        sol = odeint(
            f if not compact else lambda t, x: torch.ones_like(x),
            torch.zeros(2, 1, dtype=D),
            [0.0, 2.0],
            controller=StopAt(stops, jumps=True),
            stepping="per_sample",
            compact=compact,
        )
        if not compact:
            assert sol.x[-1, :, 0].tolist() == pytest.approx([0.3 - 1.7, 0.7 - 0.6], abs=1e-12)
            assert sol.stats.n_rejected.sum() == 0


@STEPPINGS
@pytest.mark.parametrize(
    "options",
    [{"solver": "rk4"}, {"solver": "rk4", "step_size": 0.125}, {"solver": "tsit5", "rtol": 1e-10, "atol": 1e-10}],
)
def test_gradients_to_times(stepping, options):
    """x' = x before s = 0.7 and 2 x after: x(T) = exp(0.7 - t0 + 2 (T - 0.7)). Steps after the stop do not move with t0."""
    t0, end = (torch.tensor(v, dtype=D, requires_grad=True) for v in (0.1, 1.3))
    t = torch.stack([t0, torch.tensor(0.9, dtype=D), end])

    def f(t, x):
        return torch.where(t < 0.7, 1.0, 2.0) * x * (1 + 0 * torch.sin(t))

    controller = StopAt([0.7], FixedStep() if options["solver"] in FIXED else None, jumps=True)
    sol = odeint(f, torch.ones(1, 1, dtype=D), t, controller=controller, stepping=stepping, **options)
    expected = math.exp(0.6 + 2 * 0.6)
    found = torch.autograd.grad(sol.x[-1].sum(), (t0, end))
    tolerance = 1e-2 if options["solver"] == "rk4" else 1e-8
    assert sol.x[-1].item() == pytest.approx(expected, rel=tolerance)
    assert [g.item() for g in found] == pytest.approx([-expected, 2 * expected], rel=tolerance)


@STEPPINGS
def test_gradients_of_controls(stepping):
    """The worked example: a piecewise constant control, and the derivative of the end in each of its values."""
    values = torch.tensor([1.0, -0.5, 2.0], dtype=D, requires_grad=True)
    switches = torch.tensor([0.4, 1.1], dtype=D)

    def f(t, x):
        return -x + values[torch.searchsorted(switches, t.reshape(-1).detach())].reshape(t.shape)

    sol = odeint(
        f,
        torch.zeros(1, 1, dtype=D),
        [0.0, 2.0],
        controller=StopAt(switches, jumps=True),
        stepping=stepping,
        rtol=1e-10,
        atol=1e-10,
    )
    ends = torch.tensor([0.0, 0.4, 1.1, 2.0], dtype=D)
    weights = torch.exp(ends[1:] - 2) - torch.exp(ends[:-1] - 2)
    assert sol.x[-1].item() == pytest.approx((weights * values).sum().item(), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(sol.x[-1].sum(), values)[0], weights, rtol=1e-9, atol=0)


def test_with_events():
    event = Event(lambda t, x: x[0] - 0.25, jump=lambda t, x: x + 1)

    def f(t, x):
        return torch.where(t < 0.5, 1.0, 3.0) * torch.ones_like(x)

    sol = odeint(f, torch.zeros(1, dtype=D), [0.0, 0.2, 1.0], controller=StopAt([0.5], jumps=True), events=event)
    assert sol.x[:, 0].tolist() == pytest.approx([0, 0.2, 1 + 0.5 + 1.5], abs=1e-12)


def test_with_another_controller():
    controller = StopAt([0.5], PIDController(p=0.4, i=0.3, max_step=0.05, first_step=0.01))
    sol = odeint(lambda t, x: -x, torch.ones(1, dtype=D), [0.0, 1.0], controller=controller, save="steps")
    assert sol.t.diff().max() <= 0.05 * 1.01
    assert sol.t[1] == 0.01
    assert 0.5 in sol.t.tolist()


def test_copies():
    controller = StopAt([0.5], FixedStep(), jumps=True)
    for twin in (
        copy.deepcopy(controller),
        pickle.loads(pickle.dumps(controller)),
        controller.with_norm(None),
        controller.float(),
    ):
        sol = odeint(switched(0.5, False), torch.zeros(1, dtype=D), [0.0, 1.0], controller=twin, solver="rk4")
        assert sol.x[-1].item() == pytest.approx(0.125 - 1, abs=1e-14)
    assert not controller.state_dict()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("0.5",), TypeError, "times: got '0.5', expected numbers"),
        ((0.5,), TypeError, "times: got 0.5, expected numbers"),
        (([0.5, math.nan],), ValueError, "times: got .* expected finite ones"),
        (([0.5], "pid"), TypeError, "controller: got a str"),
        ((torch.tensor([0.5], requires_grad=True),), ValueError, "times: got a tensor that requires a gradient"),
    ],
)
def test_bad_times(arguments, error, message):
    with pytest.raises(error, match=message):
        StopAt(*arguments)


def test_bad_use():
    with pytest.raises(TypeError, match="jumps: got a int"):
        StopAt([0.5], jumps=1)
    with pytest.raises(ValueError, match=r"controller: got times to stop at of shape \[1, 3\], expected \[n\]"):
        odeint(lambda t, x: -x, torch.ones(2), [0.0, 1.0], controller=StopAt(torch.ones(1, 3)))
    with pytest.raises(
        ValueError, match=r"controller: got times to stop at of shape \[1, 3\], expected \[n\] or \[n, 2\]"
    ):
        odeint(
            lambda t, x: -x, torch.ones(2, 1), [0.0, 1.0], controller=StopAt(torch.ones(1, 3)), stepping="per_sample"
        )


@pytest.mark.gpu
@STEPPINGS
@pytest.mark.parametrize("moved", [False, True])
def test_on_a_device(stepping, moved):
    controller = StopAt([0.7], jumps=True)
    controller = controller.cuda() if moved else controller
    t = torch.tensor([0.0, 0.2, 0.7, 0.9, 2.0], dtype=D)
    x0 = torch.zeros(1, 1, dtype=D, device="cuda")
    sol = odeint(switched(0.7, False), x0, t, controller=controller, stepping=stepping)
    torch.testing.assert_close(sol.x.reshape(-1).cpu(), exact(t, 0.7), rtol=0, atol=1e-12)


@STEPPINGS
def test_resume(stepping):
    controller = StopAt([0.7, 1.4], jumps=True)

    def f(t, x):
        return torch.where(t < 0.7, 1.0, torch.where(t < 1.4, -2.0, 0.5)) * torch.ones_like(x)

    first = odeint(f, torch.zeros(1, 1, dtype=D), [0.0, 0.7], controller=controller, stepping=stepping)
    second = first.resume([0.7, 2.0])
    assert first.x[-1].item() == pytest.approx(0.7, abs=1e-13)
    assert second.x[-1].item() == pytest.approx(0.7 - 2 * 0.7 + 0.5 * 0.6, abs=1e-13)
    assert second.stats.n_rejected.sum() == 0


@STEPPINGS
@pytest.mark.parametrize(
    ("dtype", "start", "end", "count"),
    [(torch.float32, 1e6, 1e6 + 2, 1), (torch.float32, 0.0, 1000.0, 999), (torch.float64, 1.7e9, 1.7e9 + 0.1, 99)],
)
def test_no_time_is_lost_at_stops(stepping, dtype, start, end, count):
    """Only the field sees times beside the jump; the steps are whole."""
    stops = torch.linspace(start, end, count + 2, dtype=D)[1:-1]
    slope = 1000.0 if end - start < 1 else 1.0
    x0, controller = torch.zeros(1, 1, dtype=dtype), StopAt(stops, jumps=True)
    sol = odeint(lambda t, x: slope * torch.ones_like(x), x0, [start, end], controller=controller, stepping=stepping)
    plain = odeint(
        lambda t, x: slope * torch.ones_like(x), x0, [start, end], controller=StopAt(stops), stepping=stepping
    )
    assert torch.equal(sol.x, plain.x)


def test_stops_side_by_side():
    """Closer than the field can tell."""
    for dtype in (torch.float16, torch.float32):
        near = torch.nextafter(torch.tensor(0.5, dtype=torch.float32), torch.tensor(0.0)).item()
        controller = StopAt([0.5, near], jumps=True)
        f = switched(0.5, False)
        sol = odeint(
            f, torch.zeros(1, dtype=dtype), [0.0, 2.0], controller=controller, solver="dopri8", rtol=1e-2, atol=1e-2
        )
        assert sol.x[-1].item() == pytest.approx(exact(2.0, 0.5).item(), rel=3e-2)


def test_one_in_another():
    with pytest.raises(ValueError, match="controller: got a StopAt with stops of its own"):
        StopAt([0.5], StopAt([0.25]))


@STEPPINGS
@pytest.mark.parametrize("options", [{"step_size": 0.1}, {"step_size": 0.03}, {}])
def test_a_jump_stays_where_it_is(stepping, options):
    """x' = 1 before 0.5 and 3 after, whether or not a step of the grid or an output is there."""

    def f(t, x):
        return torch.where(t < 0.5, 1.0, 3.0) * torch.ones_like(x)

    t0, end = (torch.tensor(v, dtype=D, requires_grad=True) for v in (0.0, 1.0))
    t = torch.stack([t0, torch.tensor(0.5, dtype=D), end])
    controller = StopAt([0.5], FixedStep(), jumps=True)
    x0 = torch.zeros(1, 1, dtype=D)
    sol = odeint(f, x0, t, solver="rk4", controller=controller, stepping=stepping, **options)
    found = torch.autograd.grad(sol.x[-1].sum(), (t0, end))
    assert [g.item() for g in found] == pytest.approx([-1, 3], abs=1e-12)
