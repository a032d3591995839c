"""Solves that go on where others ended: against solves in one piece, in values, steps, evaluations and gradients."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from dyn_numerics import Event, FixedStep, MaxStepsError, PIDController, Save, Status, StopAt, odeint

ADAPTIVE = ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
TIGHT = {"rtol": 1e-7, "atol": 1e-9}

both_steppings = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])


def field(t, x):
    """Non-autonomous and coupled; every sample is a problem of its own."""
    return x * torch.cos(t) + 0.1 * x.flip(-1)


def starts(dtype=torch.float64):
    return torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.1, 0.2]], dtype=dtype)


def times(reverse=False, n=9):
    t = torch.linspace(0, 4, n, dtype=torch.float64)
    return t.flip(0) if reverse else t


def join(first, second):
    return torch.cat([first.x, second.x[1:]])


@both_steppings
@both_directions
@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("euler", {}),
        ("rk4", {}),
        ("dopri5", {"controller": FixedStep()}),
        ("rk4", {"step_size": 0.125}),
        ("rk4", {"step_size": 0.125, "save": "dense"}),
        ("tsit5", {"step_size": 0.25}),
    ],
)
def test_two_pieces_of_fixed_steps_are_one_solve(solver, options, reverse, stepping, counted):
    t, x0 = times(reverse), starts().requires_grad_()
    whole = odeint(field, x0, t, solver=solver, stepping=stepping, **options)
    f = counted(field)
    first = odeint(f, x0, t[:5], solver=solver, stepping=stepping, **options)
    before = f.calls
    second = first.resume(t[4:])
    assert torch.equal(second.t, t[4:])
    if "step_size" not in options:
        assert torch.equal(join(first, second), whole.x)  # to the bit
    torch.testing.assert_close(join(first, second), whole.x, rtol=1e-14, atol=1e-14)
    assert second.stats.n_evals == f.calls - before
    assert f.calls == whole.stats.n_evals
    expected, found = (torch.autograd.grad(x[1:].square().sum(), x0)[0] for x in (whole.x, join(first, second)))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13 * expected.abs().max().item())


@both_steppings
@pytest.mark.parametrize("forms", [("dense", "t_span"), ("t_span", "dense")])
def test_steps_that_are_interpolated_in_one_piece_alone(forms, stepping):
    """One piece knows the slope at the end of its steps, the other has no need of it."""
    x0, options = starts(), {"solver": "rk4", "step_size": 0.25, "stepping": stepping}
    whole = odeint(field, x0, [0.0, 1.0, 2.0], **options)
    first = odeint(field, x0, [0.0, 1.0], save=forms[0], **options)
    second = first.resume([1.0, 2.0], save=forms[1])
    torch.testing.assert_close(join(first, second), whole.x, rtol=1e-14, atol=1e-14)


@both_steppings
@both_directions
@pytest.mark.parametrize("controller", [None, PIDController(p=0.4, i=0.3, d=0.1)], ids=["i", "pid"])
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_steps_go_on_as_if_nothing_had_happened(solver, controller, reverse, stepping, counted):
    """Split at an accepted step; the memory of the controller, of rejections and of the last slope shows in the steps."""
    ends, x0 = times(reverse)[[0, -1]], starts()
    options = {"solver": solver, "controller": controller, "stepping": stepping, "save": "steps", **TIGHT}
    whole = odeint(field, x0, ends, **options)
    middle = whole.t[len(whole.t) // 3]
    ends = ends.unsqueeze(-1).expand(2, 3) if stepping == "per_sample" else ends
    f = counted(field)
    first = odeint(f, x0, torch.stack([ends[0], middle]), **options)
    before = f.calls
    second = first.resume(torch.stack([middle, ends[1]]))
    torch.testing.assert_close(torch.cat([first.t, second.t[1:]]), whole.t, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(join(first, second), whole.x, rtol=1e-13, atol=1e-13)
    assert second.stats.n_evals == f.calls - before
    if stepping == "joint":  # of which the last one is no output; per sample that is counted twice
        afresh = odeint(field, first.x[-1], second.t[[0, -1]], **options)
        assert second.stats.n_steps <= afresh.stats.n_steps
        assert second.stats.n_evals <= afresh.stats.n_evals - 2  # slope and estimate of the first step


@both_steppings
def test_evaluations_of_both_pieces_are_those_of_one(stepping, growth, counted):
    """No sample rejects anything here, so that the counts must agree."""
    f, x0 = counted(growth), torch.ones(2, 1, dtype=torch.float64)
    options = {"solver": "tsit5", "stepping": stepping, "controller": PIDController(first_step=0.1, max_step=0.1)}
    with torch.no_grad():
        whole = odeint(f, x0, [0.0, 1.0], **options)
        first = odeint(f, x0, [0.0, 0.5], **options)
        second = first.resume([0.5, 1.0])
    assert whole.stats.n_rejected.sum() == 0
    assert first.stats.n_evals + second.stats.n_evals == whole.stats.n_evals
    assert second.stats.n_evals == 6 * 5
    assert second.stats.n_active_evals.tolist() == ([30, 30] if stepping == "per_sample" else 30)
    assert second.stats.n_accepted.tolist() == ([5, 5] if stepping == "per_sample" else 5)


@both_steppings
@both_directions
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_a_short_last_step_does_not_shorten_the_next(solver, reverse, stepping):
    """Every step is 0.1 long, the last one a fiftieth of that; from a tenth of it on the next could only grow."""
    sign = -1 if reverse else 1
    control = PIDController(first_step=0.1, max_step=0.1)
    options = {"solver": solver, "stepping": stepping, "controller": control, "rtol": 1.0, "atol": 1.0}
    first = odeint(field, starts()[:1], [0.0, sign * 0.502], **options)
    assert first.dt_last.item() == pytest.approx(0.002, rel=1e-9)
    second = first.resume([sign * 0.502, sign * 0.902], save="steps")
    expected = sign * torch.full((4,), 0.1, dtype=torch.float64)
    torch.testing.assert_close(second.t.reshape(-1).diff(), expected, rtol=1e-6, atol=0)


def test_a_last_step_that_the_error_calls_too_long_does():
    """It was cut short by a tenth and just accepted, so that one of the planned length would not be."""

    def first(rtol):
        return odeint(
            lambda t, x: -x, torch.ones(1).double(), [0.0, 0.18], solver="bosh3", save=Save(internals=True),
            controller=PIDController(first_step=0.2), rtol=rtol, atol=1e-12,
        )  # fmt: skip

    sol = first(rtol=first(rtol=1.0).internals.error.item() / 0.95)  # in units of the tolerance 0.95
    assert sol.stats.n_steps == 1
    second = sol.resume([0.18, 1.0], save="steps")
    assert second.stats.n_rejected == 0
    assert second.t.diff()[0].item() == pytest.approx(0.18 * 0.9 * 0.95 ** (-1 / 3), rel=1e-6)


@both_steppings
def test_gradients_of_every_kind_against_differences(stepping):
    """To the state, to what the field captures, and to the times of both pieces; the steps do not depend on them."""
    rate = torch.tensor([0.7, -0.3], dtype=torch.float64)
    x0 = starts()[:, :1] * torch.ones(2, dtype=torch.float64)
    first, second = torch.tensor([0.0, 0.4, 1.1]).double(), torch.tensor([1.1, 1.5, 2.3]).double()

    def end(x0, rate, first, second):
        sol = odeint(
            lambda t, x: rate * x * torch.cos(t) + t, x0, first, solver="dopri5", stepping=stepping,
            controller=FixedStep(), save=Save(internals=True),
        )  # fmt: skip
        again = sol.resume(second)
        return sol.x.square().sum() + again.x.sin().sum() + again.internals.error.sum()

    inputs = [value.clone().requires_grad_() for value in (x0, rate, first)]
    assert torch.autograd.gradcheck(lambda *values: end(*values, second_of(values[2], second)), inputs, eps=1e-6)


def second_of(first, second):
    """Times that start where the others end; differentiable alone."""
    return torch.cat([first[-1:], second[1:]])


@both_steppings
@pytest.mark.parametrize("which", ["first", "second"])
def test_gradients_to_the_times_of_one_piece(which, stepping):
    """Against the exact flow of x' = t x: what depends on the end of the first piece is its state alone."""
    t_first, t_second = torch.tensor([0.5, 1.0]).double(), torch.tensor([1.0, 1.7]).double()
    (t_first if which == "first" else t_second).requires_grad_()
    x0 = torch.ones(1, 1, dtype=torch.float64)
    first = odeint(lambda t, x: t * x, x0, t_first, stepping=stepping, rtol=1e-10, atol=1e-12)
    second = first.resume(t_second)
    end = second.x[-1].sum()
    t = t_first if which == "first" else t_second
    (found,) = torch.autograd.grad(end, t)
    # x = exp((1.0^2 - 0.5^2) / 2) exp((1.7^2 - 1.0^2) / 2)
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, end.detach() * sign * t.detach(), rtol=1e-7, atol=0)


@both_steppings
def test_a_first_piece_without_gradient(stepping, counted):
    """Its last slope has none either, so it is evaluated again."""
    net = nn.Linear(2, 2).double()
    f = counted(lambda t, x: net(x) * torch.cos(t))
    options = {"solver": "dopri5", "stepping": stepping, "step_size": 0.25}
    with torch.no_grad():
        first = odeint(f, starts(), [0.0, 1.0], **options)
    second = first.resume([1.0, 2.0])
    afresh = odeint(f, first.x[-1], [1.0, 2.0], **options)
    found, expected = (torch.autograd.grad(sol.x[-1].sum(), net.weight)[0] for sol in (second, afresh))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    f.times.clear()
    with torch.no_grad():
        again = first.resume([1.0, 2.0])
    assert again.stats.n_evals == f.calls == 6 * 4


@both_steppings
def test_pytrees_complex_numbers_and_copies_of_the_batch(stepping):
    x0 = {"q": starts()[:, 0].to(torch.complex128), "p": starts().float()}

    def f(t, x):
        turn = t if stepping == "per_sample" else t.expand(3)
        return {"q": 1j * x["q"] * turn, "p": -x["p"] * turn[:, None].float()}

    t = times(n=9)
    whole = odeint(f, x0, t, solver="rk4", stepping=stepping)
    first = odeint(f, x0, t[:4], solver="rk4", stepping=stepping)
    second = first.resume(t[3:6])
    third = second.resume(t[5:], save=Save(fn=lambda t, x: x["q"].abs()))
    for name in x0:
        assert torch.equal(torch.cat([first.x[name], second.x[name][1:]]), whole.x[name][:6])
        assert second.x[name].dtype == x0[name].dtype
    torch.testing.assert_close(third.x, whole.x["q"][5:].abs(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("recorded", [False, True])
def test_each_sample_from_its_own_end_on_in_its_own_direction(recorded):
    """The last one stands at first, so that no step size of it is known."""
    spans = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.5, 1.0], [1.0, -1.0, 1.0]], dtype=torch.float64)
    on = torch.stack([spans[-1], spans[-1] + torch.tensor([2.0, -2.0, 1.0], dtype=torch.float64)])
    x0 = starts().requires_grad_(recorded)
    first = odeint(field, x0, spans, stepping="per_sample", **TIGHT)
    second = first.resume(on)
    for i in range(3):
        start = starts()[i].requires_grad_(recorded)
        exact = odeint(field, start, torch.stack([spans[0, i], on[1, i]]), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(second.x[-1, i], exact.x[-1], rtol=1e-5, atol=1e-6)
        if recorded:
            (found,) = torch.autograd.grad(second.x[-1, i].sum(), x0, retain_graph=True)
            (expected,) = torch.autograd.grad(exact.x[-1].sum(), start)
            torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-6)
            assert found.count_nonzero() == 2


@both_steppings
def test_spans_of_no_length(stepping, counted):
    f, x0 = counted(field), starts()
    options = {"stepping": stepping, **TIGHT}
    with torch.no_grad():
        first = odeint(f, x0, [0.0, 1.0], **options)
        before = f.calls
        stands = first.resume([1.0])
        assert f.calls == before
        assert torch.equal(stands.x[0], first.x[-1])
        after, expected = stands.resume([1.0, 2.0]), first.resume([1.0, 2.0])
        assert torch.equal(after.x, expected.x)
        assert after.stats.n_evals == expected.stats.n_evals
        from_nothing = odeint(f, x0, [0.0], **options).resume([0.0, 1.0])
    assert torch.equal(from_nothing.x, first.x)


def test_the_gradient_to_the_time_of_a_span_of_no_length():
    for stepping in ("joint", "per_sample"):
        t = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
        sol = odeint(lambda t, x: t * x, torch.ones(1, 1).double(), t, stepping=stepping, rtol=1e-10, atol=1e-10)
        end = sol.resume(torch.tensor([1.0, 2.0]).double()).x[-1].sum()
        (found,) = torch.autograd.grad(end, t)
        torch.testing.assert_close(found, torch.tensor([-1.0, 1.0]).double() * end.detach(), rtol=1e-7, atol=0)


def test_options_hold_and_can_be_changed():
    seen = []
    first = odeint(
        lambda t, x, rate: -rate * x, torch.ones(1).double(), [0.0, 1.0], args=(2.0,), max_steps=20, save="steps", **TIGHT
    )  # fmt: skip
    second = first.resume([1.0, 2.0])
    assert torch.equal(second.t, second.steps.t)  # still the steps
    assert second.x[-1].item() == pytest.approx(math.exp(-4), rel=1e-6)
    assert first.stats.n_steps + second.stats.n_steps > 20  # the limit is one of each solve
    with pytest.raises(MaxStepsError):
        first.resume([1.0, 2.0], max_steps=2)
    partial = first.resume([1.0, 2.0], max_steps=2, throw=False, save="dense")
    assert partial.status is Status.MAX_STEPS
    assert partial.dense is not None

    class Bar:
        def update(self, n):
            seen.append(n)

    first.resume([1.0, 2.0], progress=Bar())
    assert sum(seen) == pytest.approx(1)


def failing(t, x):
    """The first sample has no solution behind t = 1."""
    return torch.cat([x[:1] ** 2, -x[1:] * t[1:]]) if t.dim() else -x


def test_what_has_failed_stays_failed_beside_others():
    """And meets no gradient, of the solve or of what is kept."""
    x0 = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    options = {"stepping": "per_sample", "throw": False, **TIGHT}
    first = odeint(failing, x0, [0.0, 2.0], **options)
    assert first.status[0] is not Status.SUCCESS
    for save in ("t_span", "steps", "dense", Save(("dense", "steps"), fn=lambda t, x: scale * x.log())):
        second = first.resume([2.0, 2.5, 3.0], save=save)
        assert second.status == first.status
        assert second.t_reached[0] == first.t_reached[0]
        assert second.dt_last[0] == first.dt_last[0]
        assert second.t_reached[1:].tolist() == [3.0, 3.0]
        assert second.x[:, 0].isnan().all()
        assert second.x[:, 1:].isfinite().all()
        if second.dense is not None:
            assert second.dense(torch.tensor([[2.0]]).double())[:, 0].isnan().all()
            assert second.dense(torch.tensor([[2.0, 2.2, 2.2]]).double())[:, 1:].isfinite().all()
        if second.steps is not None:
            assert second.steps.x[:, 0].isnan().all()
        grads = torch.autograd.grad(second.x[:, 1:].sum(), (x0, scale), allow_unused=True, retain_graph=True)
        assert grads[0][1:].isfinite().all()
        assert (grads[0][1:] != 0).all()
        assert grads[0][0] == 0
        assert grads[1] is None or torch.isfinite(grads[1])
    on = torch.stack([first.t_reached, torch.full((3,), 3.0, dtype=torch.float64)])  # from where the first one stopped
    assert torch.equal(first.resume(on).x[:, 1:], first.resume([2.0, 3.0]).x[:, 1:])
    with pytest.raises(RuntimeError, match=r"Sample 0 stopped at t = (0\.9|1)"):
        first.resume([2.0, 3.0], throw=True)


def test_what_has_failed_stays_failed_alone(counted):
    f = counted(lambda t, x: x**2)
    first = odeint(f, torch.ones(1).double(), [0.0, 2.0], throw=False)
    before = f.calls
    second = first.resume([2.0, 3.0])
    assert f.calls == before
    assert second.status is first.status
    assert second.x.isnan().all()
    assert second.t_reached == first.t_reached
    overflow = odeint(
        lambda t, x: x**2, torch.full((1,), 1e200, dtype=torch.float64), [0.0, 1.0, 2.0], solver="euler", throw=False
    )
    again = overflow.resume([2.0, 3.0])
    assert again.status is overflow.status is Status.NON_FINITE
    assert again.t_reached == overflow.t_reached == 0
    assert again.x.isnan().all()


@both_steppings
def test_bad_times(stepping):
    sol = odeint(field, starts(), [0.0, 1.0], stepping=stepping)
    where = r"1.5 \(of sample 0\)" if stepping == "per_sample" else "1.5"
    with pytest.raises(ValueError, match=rf"t_span: got {where} as the first time, expected 1"):
        sol.resume([1.5, 2.0])
    with pytest.raises(ValueError, match="t_span: got times in the other direction"):
        sol.resume([1.0, 0.5])
    with pytest.raises(ValueError, match="t_span: got no times"):
        sol.resume([])
    with pytest.raises(ValueError, match="max_steps: got 0"):
        sol.resume([1.0, 2.0], max_steps=0)
    with pytest.raises(ValueError, match="save: got 'all'"):
        sol.resume([1.0, 2.0], save="all")


def test_the_end_as_the_user_got_it_back():
    """Times given as numbers come back in single precision where the state is in single precision."""
    sol = odeint(field, starts(torch.float32), [0.0, 0.1])
    assert sol.t[-1].item() != 0.1
    for start in (0.1, sol.t[-1].item()):
        assert sol.resume([start, 0.2]).status is Status.SUCCESS
    with pytest.raises(ValueError, match=r"t_span: got 0\.10001"):
        sol.resume([0.10001, 0.2])


def test_copies_and_transforms_are_refused():
    sol = odeint(field, starts(), [0.0, 1.0])
    assert "_resumption" not in repr(sol)
    for other in (copy.deepcopy(sol), pickle.loads(pickle.dumps(sol))):
        with pytest.raises(ValueError, match="resume: got a solution that was compiled, loaded or copied"):
            other.resume([1.0, 2.0])
    with pytest.raises(ValueError, match=r"resume: got a solution inside of torch.compile or torch.func"):
        torch.func.vmap(lambda x: odeint(field, x, [0.0, 1.0]).resume([1.0, 2.0]).x)(starts())
    kept = []
    torch.func.jvp(lambda x: kept.append(odeint(field, x, [0.0, 1.0])) or x, (starts(),), (starts(),))
    with pytest.raises(ValueError, match="resume: got a solution that came out of torch"):
        kept[0].resume([1.0, 2.0])


def test_a_learned_controller_goes_on_with_its_gradient():
    class Learned(PIDController):
        differentiable = True

        def __init__(self):
            super().__init__(p=0.4, i=0.3)
            self.gain = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def judge(self, error, error_order, memory):
            verdict = super().judge(error, error_order, memory)
            return verdict._replace(factor=torch.where(verdict.accept, verdict.factor * self.gain, verdict.factor))

    for stepping in ("joint", "per_sample"):
        control = Learned()
        options = {"controller": control, "stepping": stepping, "save": "steps", "rtol": 1e-5}
        x0 = starts()[:1]
        whole = odeint(field, x0, [0.0, 3.0], **options)
        middle = whole.t[len(whole.t) // 2].reshape(-1)[0].item()
        first = odeint(field, x0, [0.0, middle], **options)
        second = first.resume([middle, 3.0])
        torch.testing.assert_close(second.t[1:].detach(), whole.t[-len(second.t) + 1 :].detach(), rtol=1e-13, atol=0)
        (found,) = torch.autograd.grad(second.t[1].sum(), control.gain)
        assert found.isfinite()
        assert found != 0


def test_inference_mode_on_the_way():
    first = odeint(field, starts(), [0.0, 1.0])
    with torch.inference_mode():
        second = first.resume([1.0, 2.0])
    assert second.x.is_inference()
    torch.testing.assert_close(second.x, first.resume([1.0, 2.0]).x, rtol=1e-13, atol=0)


def fall(t, x):
    return torch.stack([x[..., 1], -torch.ones_like(x[..., 0])], dim=-1)


def drop(stepping):
    """Balls at rest, from heights that are reached by others at other times."""
    heights = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    return heights if stepping == "per_sample" else heights[0]


@both_steppings
def test_bouncing_goes_on_across_the_seam(stepping):
    """The seam lies in the air, and just before and behind a bounce; every bounce happens once."""
    bounce = Event(lambda t, x: x[..., 0], direction=-1, jump=lambda t, x: x * torch.tensor([0.0, -0.8]).to(x))
    options = {"stepping": stepping, "events": bounce, "rtol": 1e-9, "atol": 1e-9}
    x0 = drop(stepping).requires_grad_()
    first_bounce = math.sqrt(2.0)
    whole = odeint(fall, x0, [0.0, 6.0], **options)
    (expected,) = torch.autograd.grad(whole.x[-1].sum(), x0)
    for seam in (1.0, first_bounce - 1e-6, first_bounce + 1e-6, 3.0):
        first = odeint(fall, x0, [0.0, seam], **options)
        second = first.resume([seam, 6.0])
        torch.testing.assert_close(second.x[-1], whole.x[-1], rtol=1e-6, atol=1e-6)
        assert torch.equal(first.events[0].count + second.events[0].count, whole.events[0].count)
        (found,) = torch.autograd.grad(second.x[-1].sum(), x0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@both_steppings
def test_from_a_terminal_event_on(stepping):
    """It does not happen again, and the slope behind the step that it cut is not the first of the next."""
    lands = Event(lambda t, x: x[..., 0] - 0.5, direction=-1)
    options = {"stepping": stepping, "events": lands, "rtol": 1e-9, "atol": 1e-9, "solver": "dopri5"}

    def f(t, x):
        time = t.reshape(x.shape[:-1])
        return torch.stack([x[..., 1], -1 - torch.sin(3 * time)], dim=-1)

    x0 = drop(stepping).requires_grad_()
    first = odeint(f, x0, [0.0, 5.0], **options)
    end = first.t_reached
    assert torch.all(first.status_code == Status.EVENT.code)
    on = torch.stack([end, end + 1])
    second = first.resume(on)
    assert torch.all(second.status_code == 0)
    assert torch.all(second.events[0].count == 0)
    exact = odeint(f, x0, torch.stack([0 * end, end + 1]), stepping=stepping, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(second.x[-1], exact.x[-1], rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match=r"t_span: got 4.5.*as the first time, expected \d\.\d+"):
        first.resume([4.5, 6.0])
    ended = first.resume([5.0, 6.0])
    assert torch.equal(ended.status_code, first.status_code)
    assert torch.equal(ended.t_reached, first.t_reached)
    assert ended.x.isnan().all()
    # The end of the first piece moves with its event, and the start of the second is given.
    start = first.events[0].t[0]
    moving = first.resume(torch.stack([start, (end + 1)]))
    (found,) = torch.autograd.grad(moving.x[-1].sum(), x0)
    (expected,) = torch.autograd.grad(exact.x[-1].sum(), x0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@both_steppings
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_from_where_the_field_jumps_on(solver, stepping):
    """The slope before the jump must not be the first behind it."""

    def f(t, x):
        return torch.where(t < 1, -x, 3 * x)

    controller = StopAt([1.0], FixedStep() if solver == "rk4" else PIDController(), jumps=True)
    options = {"solver": solver, "stepping": stepping, "controller": controller}
    options |= {"step_size": 0.125} if solver == "rk4" else {"rtol": 1e-9, "atol": 1e-9}
    x0 = torch.ones(2, 1, dtype=torch.float64)
    whole = odeint(f, x0, [0.0, 2.0], **options)
    first = odeint(f, x0, [0.0, 1.0], **options)
    second = first.resume([1.0, 2.0])
    torch.testing.assert_close(second.x[-1], whole.x[-1], rtol=1e-9, atol=0)
    assert torch.equal(first.stats.n_steps + second.stats.n_steps, whole.stats.n_steps)
    rounding = 1e-2 if solver == "rk4" else 1e-7
    torch.testing.assert_close(second.x[-1], torch.full_like(x0, math.exp(2)), rtol=rounding, atol=0)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_what_ran_out_of_steps_goes_on(stepping):
    """From where it got, with more of them."""

    def f(t, x):
        return x * torch.cos(t)

    x0 = torch.ones(1, 1, dtype=torch.float64)
    options = {"stepping": stepping, "rtol": 1e-8, "atol": 1e-8}
    first = odeint(f, x0, [0.0, 5.0], max_steps=7, throw=False, **options)
    t = first.t_reached.reshape(-1)[0].item()
    assert 0 < t < 5
    second = first.resume([t, 5.0], max_steps=1000)
    assert second.x[-1].item() == pytest.approx(odeint(f, x0, [0.0, 5.0], **options).x[-1].item(), rel=1e-12)
