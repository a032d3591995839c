"""`stepping="per_sample"`: every sample is its own problem, in value, status, statistics and gradient."""

import math

import pytest
import torch

from dyn_numerics import Callbacks, FixedStep, PerSample, PIDController, SolverError, Status, Tsit5, odeint
from dyn_numerics.norms import rms_norm

D = torch.float64
T_SPAN = torch.linspace(0, 3, 7, dtype=D)
MODES = {
    "tsit5": {"solver": "tsit5"},
    "dopri5": {"solver": "dopri5"},
    "bosh3": {"solver": "bosh3"},
    "rk4 on t_span": {"solver": "rk4"},
    "rk4 step_size": {"solver": "rk4", "step_size": 0.07},
    "tsit5 on t_span": {"solver": "tsit5", "controller": FixedStep()},
}
SAVES = ["t_span", "steps", "dense"]

each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
each_way = pytest.mark.parametrize("compact", [False, True], ids=["whole", "compact"])


def spiral(t, x):
    """Elementwise and non-autonomous, at another pace for every radius."""
    a, b = x[..., 0], x[..., 1]
    pace = torch.cos(t if t.dim() == 0 else t[..., 0]) + a * a + b * b
    return torch.stack([pace * b, -pace * a], -1)


@pytest.fixture
def x0():
    return 0.5 * torch.randn(9, 2, dtype=D, generator=torch.Generator().manual_seed(0))


def solve(f, x0, t_span=T_SPAN, **options):
    return odeint(f, x0, t_span, **{"rtol": 1e-6, "atol": 1e-8, "stepping": "per_sample", **options})


def alone(f, x0, i, t_span=T_SPAN, **options):
    return solve(f, x0[i : i + 1], t_span, **options)


@each_mode
@each_way
def test_every_sample_is_solved_as_if_it_were_alone(mode, compact, x0):
    sol = solve(spiral, x0, compact=compact, **mode)
    for i in range(len(x0)):
        single = alone(spiral, x0, i, **mode)
        torch.testing.assert_close(sol.x[:, i], single.x[:, 0], rtol=0, atol=1e-12)
        assert sol.stats.n_steps[i] == single.stats.n_steps[0]
        assert sol.stats.n_accepted[i] == single.stats.n_accepted[0]
        assert sol.stats.n_active_evals[i] == single.stats.n_active_evals[0] == single.stats.n_evals
    assert sol.status == [Status.SUCCESS] * len(x0)


@each_mode
def test_a_joint_solve_of_one_sample_takes_the_same_steps(mode, x0):
    single = alone(spiral, x0, 0, **mode)
    joint = odeint(spiral, x0[:1], T_SPAN, rtol=1e-6, atol=1e-8, **mode)
    torch.testing.assert_close(single.x, joint.x, rtol=0, atol=1e-11)
    assert single.stats.n_steps[0] == joint.stats.n_steps
    assert single.stats.n_evals == joint.stats.n_evals


@each_mode
@each_way
def test_against_a_closed_form(mode, compact):
    """x' = rate x cos t, each sample with a rate of its own."""
    rate = torch.tensor([0.1, 1.0, -3.0, 6.0], dtype=D)
    sol = solve(
        lambda t, x, rate: rate[:, None] * x * torch.cos(t),
        torch.ones(4, 1, dtype=D),
        torch.linspace(0, 3, 61, dtype=D),
        args=(PerSample(rate),),
        compact=compact,
        **mode,
    )
    expected = torch.exp(rate * torch.sin(torch.linspace(0, 3, 61, dtype=D))[:, None])
    torch.testing.assert_close(sol.x[..., 0], expected, rtol=2e-3 if mode["solver"] == "rk4" else 5e-5, atol=0)


def test_results_do_not_depend_on_the_order_of_the_batch_to_the_last_bit(x0):
    order = torch.randperm(len(x0), generator=torch.Generator().manual_seed(1))
    for mode in MODES.values():
        with torch.no_grad():
            sol, permuted = solve(spiral, x0, **mode), solve(spiral, x0[order], **mode)
        assert torch.equal(sol.x[:, order], permuted.x)
        assert torch.equal(sol.stats.n_steps[order], permuted.stats.n_steps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 17, 64])
def test_bits_whatever_the_size_of_the_batch(dtype, batch):
    x0 = torch.randn(64, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))

    def field(t, x):
        return torch.sin(3 * t) - x * x.abs()

    with torch.no_grad():
        whole = solve(field, x0, rtol=1e-4, atol=1e-5).x
        part = solve(field, x0[:batch], rtol=1e-4, atol=1e-5).x
    assert torch.equal(whole[:, :batch], part)


@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
def test_a_sample_alone_and_in_a_batch_of_a_thousand(grad):
    """Also where the field multiplies matrices, whose rounding depends on the batch."""
    x0 = torch.randn(1024, 3, dtype=D, generator=torch.Generator().manual_seed(4)).requires_grad_(grad)
    weight = torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(5))

    def field(t, x):
        return torch.tanh(x @ weight) * torch.cos(t)

    whole = solve(field, x0, rtol=1e-8, atol=1e-8)
    for i in (0, 1, 511, 1023):
        part = solve(field, x0[i : i + 1], rtol=1e-8, atol=1e-8)
        assert part.stats.n_steps[0] == whole.stats.n_steps[i]
        torch.testing.assert_close(part.x[:, 0], whole.x[:, i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("time_scale", [1e-9, 1e9])
def test_huge_and_tiny_scales_side_by_side(scale, time_scale, x0):
    """Every sample in units of its own: the same numbers of steps, and the same digits."""
    units = torch.tensor([1.0, scale, 1 / scale], dtype=D).unsqueeze(1)
    times = torch.tensor([1.0, time_scale, 1 / time_scale], dtype=D)
    start = x0[:1].expand(3, 2)

    def field(t, x):
        y, tau = x / units, t / times.unsqueeze(1)
        return torch.stack([y[:, 1], -torch.sin(y[:, 0]) + torch.cos(tau[:, 0])], -1) * units / times.unsqueeze(1)

    sol = solve(field, start * units, T_SPAN.unsqueeze(1) * times, atol=1e-8 * units)
    # The first step is estimated by a rule that is not one of units: it may have to grow, ten times in each step.
    assert sol.stats.n_steps.max() <= sol.stats.n_steps.min() + 9
    scaled = sol.x / units
    torch.testing.assert_close(scaled[:, 1:], scaled[:, :1].expand(-1, 2, -1), rtol=1e-4, atol=1e-4)


def failing(t, x, p=1.0):
    """x' = -p x, but not a number for a sample that starts above 5, late for one above 8."""
    bad = (x.detach() > 5) & ((x.detach() < 8) | (t > 0.02))
    return torch.where(bad, torch.nan, -x) * p


@each_way
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("save", SAVES)
def test_a_failed_neighbour_changes_nothing(compact, grad, save):
    x0 = torch.tensor([[1.0], [9.0], [2.0], [6.0], [3.0]], dtype=D)
    good = [0, 2, 4]
    with torch.set_grad_enabled(grad):
        sol = solve(failing, x0, throw=False, compact=compact, save=save)
        expected = solve(failing, x0[good], compact=compact, save=save)
    n = len(expected.x)
    if save != "steps":
        assert torch.equal(sol.x[:, good], expected.x)
        assert sol.x[1:, [1, 3]].isnan().all()
        assert sol.x[0, [1, 3]].tolist() == [[9.0], [6.0]]
    else:
        assert torch.equal(sol.x[:n, good], expected.x)
    assert torch.equal(sol.stats.n_steps[good], expected.stats.n_steps)
    assert [s.name for s in sol.status] == ["SUCCESS", "NON_FINITE", "SUCCESS", "NON_FINITE", "SUCCESS"]
    assert sol.t_reached[3] == 0
    assert 0 < sol.t_reached[1] <= 0.03
    with pytest.raises(SolverError, match=r"Sample 1 stopped at t = 0.0.*Of 5 samples 2 failed \(NON_FINITE 2\)"):
        sol.raise_if_failed()


def test_gradients_beside_a_failed_sample_and_across_rejected_attempts():
    """A shared parameter's gradient is finite, and that of the others alone."""
    x0 = torch.tensor([[1.0], [9.0], [2.0], [6.0]], dtype=D)

    def gradient(x0, good):
        p = torch.tensor(1.3, dtype=D, requires_grad=True)
        sol = solve(lambda t, x: failing(t, x, p), x0.requires_grad_(), throw=False)
        loss = sol.x[:, good].pow(2).sum()
        return torch.autograd.grad(loss, [p, x0])

    p, x = gradient(x0.clone(), [0, 2])
    p_alone, x_alone = gradient(x0[[0, 2]].clone(), [0, 1])
    torch.testing.assert_close(p, p_alone, rtol=1e-13, atol=0)
    torch.testing.assert_close(x[[0, 2]], x_alone, rtol=1e-13, atol=0)
    assert (x[[1, 3]] == 0).all()


def test_gradients_where_the_field_knows_its_samples():
    """Where the second sample stops, its own constants meet no other sample's state: its root would have no value there."""
    floor = torch.tensor([[-9.0], [2.0]], dtype=D)

    def field(t, x, p):
        slope = p * torch.cos(t) * x + 0.1 * torch.sqrt(x - floor)
        return slope * torch.where(torch.tensor([[False], [True]]) & (t > 0.5), torch.nan, 1.0)

    def gradient(f, x0):
        p = torch.tensor(1.3, dtype=D, requires_grad=True)
        sol = solve(f, x0, throw=False, args=(p,))
        (found,) = torch.autograd.grad(sol.x[-1, 0].sum(), p)
        return sol, found

    sol, found = gradient(field, torch.tensor([[1.0], [4.0]], dtype=D))
    assert [status.name for status in sol.status] == ["SUCCESS", "NON_FINITE"]
    _, alone = gradient(
        lambda t, x, p: p * torch.cos(t) * x + 0.1 * torch.sqrt(x - floor[:1]), torch.ones(1, 1, dtype=D)
    )
    torch.testing.assert_close(found, alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("field", "starts", "end"),
    [
        (lambda p, x: p * x * x, [0.3, 2.0], 1.0),
        (lambda p, x: -p * torch.sqrt(x), [3.0, 0.1], 1.0),
        (lambda p, x: p * (torch.sqrt(1 - x * x) + 0.1), [-0.5, 0.7], 1.0),
        (lambda p, x: p * torch.exp(x), [-1.0, 0.0], 2.0),
        (lambda p, x: p * x.abs() ** 1.5, [0.1, 3.0], 2.0),
    ],
    ids=["square", "root", "circle", "exp", "power"],
)
def test_gradients_beside_a_sample_that_runs_into_its_singularity(field, starts, end, dtype):
    """At the last steps before it, values and derivatives are just about finite, and rounding decides."""

    def gradient(starts):
        p = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        x0 = torch.tensor(starts, dtype=dtype).unsqueeze(1)
        sol = odeint(lambda t, x: field(p, x), x0, [0.0, end], stepping="per_sample", throw=False)
        return sol, torch.autograd.grad(sol.x[-1, 0].sum(), p)[0]

    sol, beside = gradient(starts)
    assert (sol.status_code == 0).tolist() == [True, False]
    _, alone = gradient(starts[:1])
    torch.testing.assert_close(beside, alone, rtol=1e-12 if dtype == D else 1e-5, atol=0)


def test_gradients_beside_a_sample_whose_own_argument_is_not_finite():
    rates = torch.tensor([1.0, math.nan], dtype=D)

    def gradient(x0, rates):
        p = torch.tensor(1.0, dtype=D, requires_grad=True)
        f = lambda t, x, a: p * a[:, None] * x**2  # noqa: E731
        x = odeint(f, x0, [0.0, 1.0], stepping="per_sample", args=(PerSample(rates),), throw=False).x
        return torch.autograd.grad(x[-1, 0].sum(), p)[0]

    x0 = torch.full((2, 1), 0.5, dtype=D)
    torch.testing.assert_close(gradient(x0, rates), gradient(x0[:1], rates[:1]), rtol=1e-12, atol=0)


def test_without_gradients_nothing_is_solved_twice():
    """A module with parameters under no_grad, watched."""
    net, calls, told = torch.nn.Linear(2, 2), [], []

    def field(t, x):
        calls.append(torch.is_grad_enabled())
        return net(x)

    with torch.no_grad():
        sol = solve(field, torch.ones(3, 2), callbacks=Callbacks(on_step=lambda t, x, dt: told.append(t)))
    assert sol.stats.n_evals == len(calls)
    assert not any(calls)
    assert len(told) == sol.stats.n_steps.max()


def test_a_compact_batch_of_which_half_has_ended_at_the_start():
    spans = torch.tensor([[0.0] * 4, [0.0, 0.0, 0.0, 1.0]], dtype=D)
    sol = solve(lambda t, x: -x, torch.ones(4, 1, dtype=D), spans, compact=True, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sol.x[-1, :, 0], torch.exp(-spans[1]), rtol=0, atol=1e-8)
    x0 = torch.tensor([[math.e], [0.0], [0.0]], dtype=D)
    sol = solve(lambda t, x: torch.log(x), x0, [0.0, 0.1], compact=True, throw=False)
    assert [status.name for status in sol.status] == ["SUCCESS", "NON_FINITE", "NON_FINITE"]


def test_the_dense_solution_of_a_sample_without_steps_is_its_own():
    spans = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=D)
    dense = solve(lambda t, x: -x, torch.tensor([[1.0], [5.0]], dtype=D), spans, save="dense").dense
    assert dense([0.0, 0.0])[:, 0].tolist() == [1.0, 5.0]
    torch.testing.assert_close(dense.derivative([0.0, 0.0])[:, 0], torch.tensor([-1.0, 0.0], dtype=D))
    with pytest.raises(ValueError, match=r"t: got shape \[5\], expected one that broadcasts against the batch \[2\]"):
        dense(torch.linspace(0, 1, 5))


@pytest.mark.parametrize("save", SAVES)
def test_a_batch_of_none(save):
    x0 = torch.ones(0, 2, dtype=D, requires_grad=True)
    assert solve(lambda t, x: -x, x0, [0.0, 1.0], save=save).x.shape[1:] == (0, 2)


def test_fixed_steps_that_would_not_end_are_refused_for_every_sample():
    spans = torch.tensor([[0.0, 0.0], [1e-13, 1.0]], dtype=D)
    with pytest.raises(ValueError, match="step_size: got 1e-14, expected at least 1e-09"):
        odeint(lambda t, x: -x, torch.ones(2, 1, dtype=D), spans, solver="rk4", step_size=1e-14, stepping="per_sample")


def test_gradient_across_a_rejected_attempt_that_is_not_finite():
    """The first attempts overshoot into where the root has no value."""
    p = torch.tensor(1.0, dtype=D, requires_grad=True)

    def field(t, x):
        return -p * torch.sqrt(x) * torch.ones_like(t)

    controller = PIDController(first_step=1.9)
    sol = solve(field, torch.tensor([[0.5], [4.0]], dtype=D), [0.0, 1.2], controller=controller, rtol=1e-9, atol=1e-9)
    assert sol.stats.n_rejected[0] > 0
    (gradient,) = torch.autograd.grad(sol.x[-1].sum(), p)
    # x(t) = (sqrt(x0) - p t / 2)^2
    expected = sum(-1.2 * (math.sqrt(x0) - 0.6) for x0 in (0.5, 4.0))
    assert gradient.item() == pytest.approx(expected, rel=1e-6)


@each_mode
def test_gradients_against_differences(mode, x0):
    weights = torch.randn(len(T_SPAN), 9, 2, dtype=D, generator=torch.Generator().manual_seed(3))

    def loss(x0, p):
        return (solve(lambda t, x: p * spiral(t, x), x0, rtol=1e-9, atol=1e-9, **mode).x * weights).sum()

    p = torch.tensor(0.9, dtype=D, requires_grad=True)
    start = x0.clone().requires_grad_()
    gradient_x, gradient_p = torch.autograd.grad(loss(start, p), [start, p])
    eps = 1e-5
    with torch.no_grad():
        difference_p = (loss(x0, p + eps) - loss(x0, p - eps)) / (2 * eps)
        step = torch.zeros_like(x0)
        step[4, 1] = eps
        difference_x = (loss(x0 + step, p) - loss(x0 - step, p)) / (2 * eps)
    scale = 1 + abs(difference_p.item())
    assert gradient_p.item() == pytest.approx(difference_p.item(), abs=2e-5 * scale)
    assert gradient_x[4, 1].item() == pytest.approx(difference_x.item(), abs=2e-5 * (1 + abs(difference_x.item())))


def test_the_gradient_does_not_depend_on_what_f_shows_at_the_start(x0):
    """A parameter that only matters later, behind a Python branch."""
    p = torch.tensor(2.0, dtype=D, requires_grad=True)

    def field(t, x):
        return -x * p if t.min() > 1 else -x

    sol = solve(
        field, torch.ones(2, 1, dtype=D), [0.0, 2.0], rtol=1e-8, atol=1e-8, controller=PIDController(max_step=0.01)
    )
    (gradient,) = torch.autograd.grad(sol.x[-1, 0].sum(), p)
    assert gradient.item() == pytest.approx(-math.exp(-3), rel=0.03)


def test_the_gradient_does_not_depend_on_what_a_compact_batch_showed_before(x0):
    """The parameter only matters when one of two samples has left."""
    p = torch.tensor(2.0, dtype=D, requires_grad=True)
    spans = torch.tensor([[0.0, 0.0], [0.5, 2.0]], dtype=D)

    def field(t, x):
        return -x * p if t.max() > 1 else -x

    fine = PIDController(max_step=0.01)
    sol = solve(field, torch.ones(2, 1, dtype=D), spans, rtol=1e-8, controller=fine, compact=True)
    (gradient,) = torch.autograd.grad(sol.x[-1, 1].sum(), p)
    assert gradient.item() == pytest.approx(-math.exp(-3), rel=0.03)


SPANS = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.6, 3.0], [1.0, 0.0, 4.0], [2.0, -0.5, 4.5], [2.5, -1.0, 5.0]], dtype=D)


@each_mode
@each_way
@pytest.mark.parametrize("save", SAVES)
def test_every_sample_has_its_own_times(mode, compact, save, growth):
    """Forward, backward, and of no length with a repeated end that pads."""
    spans = SPANS.clone()
    spans[3:, 0] = 1.0  # a short span, padded
    sol = solve(growth, torch.full((3, 1), 2.0, dtype=D), spans, save=save, compact=compact, **mode)
    assert sol.status == [Status.SUCCESS] * 3
    assert sol.t_reached.tolist() == [1.0, -1.0, 5.0]
    for i in range(3):
        t = sol.t[:, i]
        exact = growth.exact(t, spans[0, i].item(), 2.0)
        tolerance = 0.2 if "rk4" in mode.values() and "step_size" not in mode else 1e-3
        torch.testing.assert_close(sol.x[:, i, 0], exact, rtol=tolerance, atol=1e-3)
    if save != "steps":
        assert sol.t.shape == (5, 3)
        assert torch.equal(sol.x[2, 0], sol.x[4, 0])


def test_a_span_of_no_length_per_sample(growth):
    spans = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=D)
    sol = solve(growth, torch.ones(2, 1, dtype=D), spans)
    assert sol.x[:, 1, 0].tolist() == [1, 1, 1]
    assert sol.stats.n_steps[1] == 0
    assert sol.stats.n_steps[0] > 0
    assert sol.status == [Status.SUCCESS] * 2


@pytest.mark.parametrize("save", SAVES)
def test_a_standing_sample_with_differentiable_times_beside_one_without_a_value(save):
    def field(t, x, p):
        return p * torch.where(x > 5, torch.nan, -x)

    p = torch.tensor(1.0, dtype=D, requires_grad=True)
    spans = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]], dtype=D, requires_grad=True)
    sol = solve(field, torch.tensor([[1.0], [2.0], [6.0]], dtype=D), spans, args=(p,), throw=False, save=save)
    last = sol.x[int(sol.stats.n_accepted[0]) if save == "steps" else -1]
    of_p, of_times = torch.autograd.grad(last[:2].sum(), [p, spans])
    assert of_p.item() == pytest.approx(-math.exp(-1), rel=1e-5)
    moves = 0 if save == "steps" else -2.0
    expected = torch.tensor([[math.exp(-1), -moves, 0], [-math.exp(-1), moves, 0]], dtype=D)
    torch.testing.assert_close(of_times, expected, rtol=0, atol=1e-5)


def test_gradients_to_times_per_sample(growth):
    spans = SPANS.clone().requires_grad_()
    x = solve(growth, torch.ones(3, 1, dtype=D), spans, rtol=1e-10, atol=1e-10, solver="dopri5").x[..., 0]
    (gradient,) = torch.autograd.grad(x[1:4].sum(), spans)
    t = SPANS.clone().requires_grad_()
    exact = torch.exp(torch.sin(t) - torch.sin(t[:1]))
    exact = torch.where(t == t[:1], 1 + (t - t[:1]) * torch.cos(t[:1].detach()), exact)
    (expected,) = torch.autograd.grad(exact[1:4].sum(), t)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_dense_output_of_every_sample(growth):
    sol = solve(growth, torch.ones(3, 1, dtype=D), SPANS[[0, 1, 4]], save="dense", rtol=1e-9, atol=1e-9)
    t = SPANS[0] + torch.linspace(0, 1, 8, dtype=D)[:, None] * (SPANS[4] - SPANS[0])
    exact = torch.stack([growth.exact(t[:, i], SPANS[0, i].item()) for i in range(3)], 1)
    torch.testing.assert_close(sol.dense(t)[..., 0], exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(sol.dense.derivative(t)[..., 0], exact * torch.cos(t), rtol=0, atol=1e-4)
    assert sol.dense(SPANS[0]).shape == (3, 1)
    with pytest.raises(ValueError, match="t: got times outside the solved span"):
        sol.dense(t + 0.1)


def test_tolerances_per_sample(growth):
    rtol = torch.tensor([[1e-3], [1e-9]], dtype=D)
    sol = solve(growth, torch.ones(2, 1, dtype=D), rtol=rtol, atol=1e-12)
    assert sol.stats.n_steps[1] > 2 * sol.stats.n_steps[0]
    loose = solve(growth, torch.ones(1, 1, dtype=D), rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(sol.x[:, :1], loose.x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128])
def test_states_of_any_shape_and_dtype(shape, dtype, counted):
    f = counted(lambda t, x: -x)
    x0 = torch.arange(1, 5).reshape(4, *[1] * len(shape)).expand(4, *shape).to(dtype)
    sol = odeint(f, x0, [0.0, 0.5, 1.0], stepping="per_sample")
    assert sol.x.shape == (3, 4, *shape)
    assert sol.x.dtype == dtype
    exact = x0 * math.exp(-1)
    torch.testing.assert_close(sol.x[-1], exact.to(dtype), rtol=2e-2 if x0.element_size() == 2 else 2e-3, atol=0)
    real = torch.float64 if dtype == torch.complex128 else dtype
    assert all(t.shape == (4, *[1] * len(shape)) and t.dtype == real for t in f.times)


def test_pytrees_receive_one_time_a_sample(counted):
    f = counted(lambda t, x: {"q": x["p"], "p": -x["q"] * t[:, None] ** 0})
    x0 = {"q": torch.zeros(3, 2, dtype=D), "p": torch.tensor([[1.0, 2.0]] * 3, dtype=D)}
    sol = odeint(f, x0, T_SPAN, rtol=1e-8, atol=1e-8, stepping="per_sample")
    torch.testing.assert_close(sol.x["q"][:, 1, 1], 2 * torch.sin(T_SPAN), rtol=0, atol=1e-6)
    assert all(t.shape == (3,) for t in f.times)


def test_a_norm_of_ones_own(growth):
    sol = solve(growth, torch.ones(3, 1, dtype=D), controller=PIDController(norm=lambda e: rms_norm(e, dim=-1)))
    assert torch.equal(sol.x, solve(growth, torch.ones(3, 1, dtype=D)).x)
    with pytest.raises(TypeError, match="expected a real tensor of one element for each sample"):
        solve(growth, torch.ones(3, 1, dtype=D), controller=PIDController(norm=rms_norm))


@each_mode
@each_way
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("grad", [False, True], ids=["values", "gradient"])
def test_n_evals_equals_a_counter_inside_f(mode, compact, save, grad, counted, x0):
    f = counted(spiral)
    sol = solve(f, x0.clone().requires_grad_(grad), compact=compact, save=save, **mode)
    assert sol.stats.n_evals == f.calls
    assert (sol.stats.n_steps == sol.stats.n_accepted + sol.stats.n_rejected).all()


@each_mode
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_never_outside_a_samples_span(mode, reverse, counted):
    f = counted(lambda t, x: torch.cos(40 * t) + 0 * x)
    spans = torch.tensor([[0.1, 1000.1], [0.3, 1000.2], [0.7, 1001.3]], dtype=D)
    solve(f, torch.ones(2, 1, dtype=D), spans.flip(0) if reverse else spans, **mode)
    times = torch.stack(f.times)[..., 0]
    assert (times >= spans[0]).all()
    assert (times <= spans[-1]).all()


def test_the_number_of_outputs_changes_nothing(counted, x0):
    few, many = counted(spiral), counted(spiral)
    solve(few, x0, [0.0, 3.0])
    solve(many, x0, torch.linspace(0, 3, 200, dtype=D))
    assert few.calls == many.calls
    assert all(torch.equal(a, b) for a, b in zip(few.times, many.times, strict=True))


def test_one_hard_sample_does_not_cost_the_others_steps():
    """A batch takes as many attempts as its hardest sample alone."""
    rate = torch.tensor([1.0, 1.0, 400.0, 1.0], dtype=D)[:, None]
    sol = solve(lambda t, x: torch.cos(rate * t) * rate, torch.zeros(4, 1, dtype=D))
    hard = solve(lambda t, x: torch.cos(400 * t) * 400, torch.zeros(1, 1, dtype=D))
    assert sol.stats.n_steps.max() == hard.stats.n_steps[0]
    assert sol.stats.n_steps[0] < 0.1 * hard.stats.n_steps[0]


def test_finished_samples_leave_a_compact_batch():
    sizes = []

    def field(t, x, rate):
        sizes.append(len(x))
        return torch.cos(rate[:, None] * t) * rate[:, None]

    rate = torch.tensor([1.0] * 7 + [400.0], dtype=D)
    x0 = torch.zeros(8, 1, dtype=D)
    sol = solve(field, x0, args=(PerSample(rate),), compact=True)
    assert sizes[0] == 8
    assert sizes[-1] == 1
    torch.testing.assert_close(sol.x[..., 0], torch.sin(rate * T_SPAN[:, None]), rtol=0, atol=1e-4)
    whole = solve(field, x0, args=(PerSample(rate),))
    torch.testing.assert_close(sol.x, whole.x, rtol=0, atol=1e-13)
    assert torch.equal(sol.stats.n_steps, whole.stats.n_steps)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stepping": "each"}, ValueError, "stepping: got 'each', expected 'joint' or 'per_sample'"),
        ({"x0": torch.tensor(1.0)}, ValueError, r"x0: got leaves of shapes \[\[\]\] for samples that are solved"),
        ({"x0": (torch.ones(2), torch.ones(3))}, ValueError, "expected every one to lead with the same batch"),
        ({"t_span": torch.zeros(2, 4)}, ValueError, "t_span: got 4 columns, expected one for each of the 3 samples"),
        (
            {"t_span": torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [2.0, 0.5, 3.0]])},
            ValueError,
            "t_span: got 1 followed by 0.5 at index 1 for sample 1, expected strictly",
        ),
        ({"t_span": torch.zeros(2, 3, 1)}, ValueError, r"expected \[T\] or \[T, batch\]"),
        ({"stepping": "joint", "t_span": torch.zeros(2, 3)}, ValueError, "one dimension .*try stepping='per_sample'"),
        ({"stepping": "joint", "compact": True}, ValueError, "compact: got True with stepping='joint'"),
    ],
)
def test_bad_input(options, error, message, growth):
    options = {"x0": torch.ones(3, 1), "t_span": [0.0, 1.0], **options}
    with pytest.raises(error, match=message):
        solve(growth, **options)


def test_a_compact_batch_hints_at_arguments_that_did_not_shrink():
    spans = torch.tensor([[0.0] * 4, [0.1, 0.1, 0.1, 40.0]], dtype=D)
    rate = torch.ones(4, 1, dtype=D)
    with torch.no_grad(), pytest.raises(ValueError, match="f: returned shape") as caught:
        solve(lambda t, x: -rate * x, torch.ones(4, 1, dtype=D), spans, compact=True)
    assert "pass what belongs to samples as PerSample in args" in caught.value.__notes__[0]


def test_per_sample_arguments_fit_the_batch():
    arg = PerSample(torch.ones(3))
    with pytest.raises(ValueError, match=r"args: got a PerSample of shape \[3\], expected the state's batch 2"):
        solve(lambda t, x, a: -x, torch.ones(2, 1), [0.0, 1.0], args=(arg,))
    with pytest.raises(ValueError, match=r"args: got a PerSample of shape \[3\], expected stepping='per_sample'"):
        odeint(lambda t, x, a: -x, torch.ones(2, 1), [0.0, 1.0], args=(arg,))
    nested = solve(
        lambda t, x, a: -a["rate"][:, None] * x, torch.ones(3, 1), [0.0, 1.0], args=({"rate": arg},), rtol=1e-6
    )
    torch.testing.assert_close(nested.x[-1], torch.full((3, 1), math.exp(-1)), rtol=1e-4, atol=0)


def test_per_sample_arguments_are_tensors():
    for values in (3.0, torch.tensor(1.0), []):
        with pytest.raises(TypeError, match="values: got"):
            PerSample(values)


def test_max_steps_per_sample():
    rate = torch.tensor([1.0, 400.0], dtype=D)[:, None]
    sol = solve(lambda t, x: torch.cos(rate * t) * rate, torch.zeros(2, 1, dtype=D), max_steps=50, throw=False)
    assert [s.name for s in sol.status] == ["SUCCESS", "MAX_STEPS"]
    assert sol.stats.n_steps[1] == 50
    assert sol.x[-1, 1].isnan()
    torch.testing.assert_close(sol.x[:, 0, 0], torch.sin(T_SPAN), rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_on_a_device(x0):
    sol = solve(spiral, x0.cuda())
    torch.testing.assert_close(sol.x.cpu(), solve(spiral, x0).x, rtol=0, atol=1e-10)
    assert sol.stats.n_steps.device.type == "cuda"


@pytest.mark.parametrize("carry", [None, (1, 2)], ids=["nothing", "another tuple"])
def test_a_stepper_whose_carry_changes_its_structure(carry, growth):
    class Changing(Tsit5):
        def init(self, f, t, x, slope):
            return carry

        def step(self, f, t0, t1, x, carry):
            return super().step(f, t0, t1, x, None)

    with pytest.raises(TypeError, match=r"carry, retry, memory: got a Tensor and a (NoneType|tuple) to select among"):
        odeint(growth, torch.ones(2, 1), [0.0, 1.0], solver=Changing(), stepping="per_sample")
