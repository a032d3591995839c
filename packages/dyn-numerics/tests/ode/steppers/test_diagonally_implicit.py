"""Diagonally implicit methods: stiff problems, Newton's iteration, failures and gradients."""

import math
from itertools import pairwise

import pytest
import torch
from torch.func import grad, jacfwd, jvp, vmap

from dyn_numerics import DenseJacobian, Event, Kvaerno5, PIDController, SplitField, Status, odeint
from dyn_numerics.loop import is_supported

F64 = torch.float64


def rober(t, x, rates):
    a, b, c = rates[..., 0] * x[..., 0], rates[..., 1] * x[..., 1] * x[..., 2], rates[..., 2] * x[..., 1] ** 2
    return torch.stack([-a + b, a - b - c, c], dim=-1)


RATES = torch.tensor([0.04, 1e4, 3e7], dtype=F64)


def hires(t, x):
    a, b, c, d, e, f, g, h = x.unbind(-1)
    fast = 280 * f * h
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -fast + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            fast - 1.81 * g,
            -fast + 1.81 * g,
        ],
        dim=-1,
    )


def orego(t, x):
    a, b, c = x.unbind(-1)
    return torch.stack([77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)], dim=-1)


def van_der_pol(t, x):
    return torch.stack([x[..., 1], 1000 * (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]], dim=-1)


def stiff_van_der_pol(t, x):
    return torch.stack([x[..., 1], 1e6 * ((1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0])], dim=-1)


# Field, start, end, state there (Bari Test Set for IVP Solvers), and the absolute tolerance beside a relative one of 1.
PROBLEMS = {
    "rober": (
        lambda t, x: rober(t, x, RATES),
        (1.0, 0.0, 0.0),
        1e11,
        (2.083340149701255e-08, 8.333360770334713e-14, 0.999999979166505),
        1e-8,
    ),
    "hires": (
        hires,
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
        321.8122,
        (
            0.0007371312573325668,
            0.0001442485726316185,
            5.888729740967575e-05,
            0.001175651343283149,
            0.002386356198831331,
            0.006238968252742796,
            0.002849998395185769,
            0.002850001604814231,
        ),
        1e-3,
    ),
    "orego": (orego, (1.0, 2.0, 3.0), 360.0, (1.000814870318523, 1228.178521549917, 132.0554942846706), 1e-2),
    "van_der_pol": (van_der_pol, (2.0, 0.0), 2000.0, (1.706167732170469, -0.0008928097010248125), 1e-3),
    "stiff_van_der_pol": (stiff_van_der_pol, (2.0, 0.0), 2.0, (1.706167732170483, -0.8928097010247975), 1e-3),
}


def errors(name, tolerances):
    """Errors at the end in units of the tolerance, of samples with tolerances of their own."""
    f, x0, end, exact, least = PROBLEMS[name]
    x0, exact = torch.tensor(x0, dtype=F64), torch.tensor(exact, dtype=F64)
    rtol = torch.tensor(tolerances, dtype=F64).unsqueeze(-1)
    start = x0.expand(len(tolerances), -1)
    with torch.no_grad():
        x = odeint(f, start, [0.0, end], solver="kvaerno5", rtol=rtol, atol=least * rtol, stepping="per_sample").x
    return ((x[-1] - exact).abs() / (least * rtol + rtol * exact.abs())).amax(-1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_stiff_problems(name):
    found = errors(name, [1e-4, 1e-6] if name not in ("rober", "hires") else [1e-4, 1e-6, 1e-8])
    assert (found <= 100).all(), found
    assert (found >= 1e-4).all(), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orego", "van_der_pol", "stiff_van_der_pol"])
def test_stiff_problems_to_many_digits(name):
    assert (errors(name, [1e-8]) <= 100).all()


def test_every_sample_has_its_own_parameters():
    factors = torch.tensor([0.8, 1.0, 1.2], dtype=F64).unsqueeze(-1)
    x0 = torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    options = {"solver": "kvaerno5", "rtol": 1e-6, "atol": 1e-11}
    with torch.no_grad():
        together = odeint(
            rober, x0.expand(3, -1), [0.0, 100.0], args=(factors * RATES,), stepping="per_sample", **options
        )
        for i, factor in enumerate(factors):
            alone = odeint(rober, x0, [0.0, 100.0], args=(factor * RATES,), **options)
            torch.testing.assert_close(together.x[-1, i], alone.x[-1], rtol=1e-10, atol=1e-15)
            for count in ("n_steps", "n_jacobians", "n_factorisations", "n_iterations"):
                assert getattr(together.stats, count)[i] == getattr(alone.stats, count), count
        # Rates that are all scaled are time that is scaled.
        other = odeint(rober, x0, [0.0, 80.0], args=(RATES,), **options).x[-1]
        torch.testing.assert_close(together.x[-1, 0], other, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("solver", "order"), [("implicit_euler", 1), ("trapezoid", 2), ("kvaerno3", 2), ("kvaerno5", 2)]
)
def test_order_for_stiff_problems(solver, order):
    """Prothero and Robinson's equation: the order falls to that of the stages, of errors that fall with the stiffness."""

    def f(t, x):
        return -1e7 * (x - torch.sin(t + 0.4)) + torch.cos(t + 0.4)

    x0 = torch.tensor([math.sin(0.4)], dtype=F64)
    found = []
    for steps in (8, 16, 32):
        options = {"step_size": 3.0 / steps, "rtol": 1e-12, "atol": 1e-14}
        with torch.no_grad():
            t, x = odeint(f, x0, torch.linspace(0, 3, steps + 1, dtype=F64), solver=solver, **options)
        found.append((x[1:, 0] - torch.sin(t[1:] + 0.4)).abs().max().item())
    slopes = [math.log2(first / second) for first, second in pairwise(found)]
    assert slopes == pytest.approx([order, order], abs=0.1), found


class CountingJacobian(DenseJacobian):
    """Counts what it is asked for."""

    def __init__(self):
        super().__init__()
        self.calls = {"linearise": 0, "factorise": 0, "solve": 0}

    def linearise(self, *args, **options):
        self.calls["linearise"] += 1
        return super().linearise(*args, **options)

    def factorise(self, *args):
        self.calls["factorise"] += 1
        return super().factorise(*args)

    def solve(self, *args):
        self.calls["solve"] += 1
        return super().solve(*args)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_counts_what_newton_does(stepping):
    jac, calls = CountingJacobian(), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return van_der_pol(t, x)

    x0 = torch.tensor([[2.0, 0.0]], dtype=F64)
    with torch.no_grad():
        stats = odeint(f, x0, [0.0, 900.0], solver=Kvaerno5(jac), rtol=1e-5, atol=1e-7, stepping=stepping).stats
    # The first Jacobian, and what makes a matrix of it, are made before the first attempt.
    assert stats.n_jacobians.sum() == jac.calls["linearise"] - 1
    assert stats.n_factorisations.sum() == jac.calls["factorise"] - 1
    assert stats.n_iterations.sum() == jac.calls["solve"]
    assert stats.n_evals == calls
    # At the start the slope, that of the first guess of a step size, and the Jacobian.
    assert calls == stats.n_iterations.sum() + stats.n_jacobians.sum() + 3
    assert stats.n_rejected.sum() > 0
    assert stats.n_jacobians.sum() < stats.n_steps.sum() < stats.n_iterations.sum()


def test_linear_problems_keep_their_jacobian():
    matrix = torch.tensor([[-1e4, 1.0], [0.0, -1.0]], dtype=F64)
    with torch.no_grad():
        stats = odeint(
            lambda t, x: x @ matrix.T, torch.ones(2, dtype=F64), [0.0, 1.0], solver="kvaerno5", rtol=1e-8
        ).stats
    assert stats.n_jacobians <= 2
    assert stats.n_iterations < 3 * 6 * stats.n_steps


def pieces(t, x):
    """Sample 0 is smooth; the field of sample 1 jumps, that of 2 has no derivative at 0, and that of 3 ends at 1/2."""
    jump = torch.where(x[1:2] > 0.5, -1e6, 1e6) * torch.ones_like(x[1:2])
    return torch.cat([-(x[:1] ** 2), jump, x[2:3].abs().sqrt(), -1 / (x[3:4] - 0.5).sqrt()])


def test_failures_are_per_sample():
    x0 = torch.tensor([[1.0], [0.0], [0.0], [1.0]], dtype=F64)
    options = {
        "solver": "kvaerno5",
        "rtol": 1e-8,
        "atol": 1e-8,
        "step_size": 0.1,
        "stepping": "per_sample",
        "throw": False,
    }
    with torch.no_grad():
        found = odeint(pieces, x0, [0.0, 1.0], **options)
        alone = odeint(lambda t, x: -(x**2), x0[:1], [0.0, 1.0], **options)
    assert found.status == [Status.SUCCESS, Status.NEWTON_DIVERGED, Status.SINGULAR_MATRIX, Status.NON_FINITE]
    assert torch.equal(found.x[:, :1], alone.x)
    assert torch.equal(found.stats.n_iterations[:1], alone.stats.n_iterations)
    assert found.x[-1, 1:].isnan().all()


def test_a_failed_step_is_tried_again():
    """Beyond 1/2 there is no field: steps end there, however long the first of them."""
    x0 = torch.tensor([1.0], dtype=F64)
    options = {"solver": "kvaerno5", "controller": PIDController(first_step=1.0), "throw": False}
    with torch.no_grad():
        found = odeint(lambda t, x: -1 / (x - 0.5).sqrt(), x0, [0.0, 1.0], max_steps=300, **options)
    assert found.status is Status.NON_FINITE
    assert abs(found.t_reached.item() - 0.5**1.5 / 1.5) < 1e-3
    assert found.stats.n_rejected > 0


def smooth(t, x):
    return -50 * (x - torch.cos(t)) ** 3 - x


def test_bits_do_not_depend_on_places():
    x0 = torch.linspace(-2, 2, 7, dtype=F64).unsqueeze(-1)
    options = {"solver": "kvaerno5", "rtol": 1e-6, "atol": 1e-8, "stepping": "per_sample"}
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        x = odeint(smooth, x0, [0.0, 1.0], **options).x
        assert torch.equal(odeint(smooth, x0[order], [0.0, 1.0], **options).x, x[:, order])
        compacted = odeint(smooth, x0, [0.0, 1.0], compact=True, **options).x
        assert torch.equal(compacted, x)


def test_replayed_steps_are_the_steps():
    """The states of a solve with gradient are those of one without, to the bit."""
    x0 = torch.tensor([[2.0, 0.0], [0.5, 1.0]], dtype=F64)
    options = {"solver": "kvaerno5", "rtol": 1e-5, "atol": 1e-7, "stepping": "per_sample"}
    with torch.no_grad():
        plain = odeint(van_der_pol, x0, [0.0, 900.0], **options).x
    again = odeint(van_der_pol, x0.requires_grad_(), [0.0, 900.0], **options).x
    assert torch.equal(again.detach(), plain)


@pytest.mark.parametrize("solver", ["kvaerno3", "kvaerno5", "kencarp4"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_derivatives(solver, stepping):
    """Of a stiff solve, to start, rate and time: by reverse and forward mode, under vmap, against finite differences."""
    x0 = torch.tensor([[0.7, 1.2], [1.1, 0.4]], dtype=F64)
    rate = torch.tensor(30.0, dtype=F64)
    end = torch.tensor(0.77, dtype=F64)

    def solve(x0, rate, end):
        def a(t, x):
            return -rate * (x - torch.cos(t)) ** 3

        def b(t, x):
            return torch.sin(x.flip(-1)) * rate / 10

        f = SplitField(a, b) if solver == "kencarp4" else lambda t, x: a(t, x) + b(t, x)
        times = torch.stack([0 * end, end])
        options = {"step_size": 0.1, "rtol": 1e-12, "atol": 1e-14}
        return odeint(f, x0, times, solver=solver, stepping=stepping, **options).x[-1]

    inputs, moves = (x0, rate, end), (torch.ones_like(x0), torch.tensor(2.0).double(), torch.tensor(0.3).double())
    h = 1e-5
    with torch.no_grad():
        up, down = (solve(*(x + s * h * m for x, m in zip(inputs, moves, strict=True))) for s in (1, -1))
    expected = (up - down) / (2 * h)
    torch.testing.assert_close(jvp(solve, inputs, moves)[1], expected, rtol=1e-7, atol=1e-9)
    leaves = [x.clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(solve(*leaves).sum(), leaves)
    found = sum((g * m).sum() for g, m in zip(grads, moves, strict=True))
    torch.testing.assert_close(found, expected.sum(), rtol=1e-7, atol=1e-9)
    if stepping == "joint":
        lanes = vmap(lambda r: solve(x0, r, end))(torch.stack([rate, 2 * rate]))
        torch.testing.assert_close(lanes[1], solve(x0, 2 * rate, end), rtol=1e-10, atol=1e-12)


def of_rate(rate):
    x0 = torch.tensor([1.2, 0.3], dtype=F64)
    options = {"solver": "implicit_euler", "step_size": 0.05, "rtol": 1e-12, "atol": 1e-14}
    return odeint(lambda t, x: -rate * (x - torch.cos(t)) + x**2, x0, [0.0, 0.2], **options).x[-1].sum()


def test_derivatives_of_higher_order_by_nested_transforms():
    rate, h = torch.tensor(20.0, dtype=F64), 1e-2
    with torch.no_grad():
        expected = (of_rate(rate + h) - 2 * of_rate(rate) + of_rate(rate - h)) / h**2
    options = {"rtol": 1e-5, "atol": 0.0}
    torch.testing.assert_close(grad(grad(of_rate))(rate), expected, **options)
    torch.testing.assert_close(jacfwd(grad(of_rate))(rate), expected, **options)
    third = (grad(grad(of_rate))(rate + h) - grad(grad(of_rate))(rate - h)) / (2 * h)
    torch.testing.assert_close(grad(grad(grad(of_rate)))(rate), third, **options)
    leaf = rate.clone().requires_grad_()
    slope = jvp(of_rate, (leaf,), (torch.ones_like(leaf),))[1]
    torch.testing.assert_close(torch.autograd.grad(slope, leaf)[0], expected, **options)


def test_plain_autograd_around_vmap():
    rate = torch.tensor(20.0, dtype=F64, requires_grad=True)
    rates = torch.stack([rate, 2 * rate])
    together, one_by_one = vmap(of_rate)(rates).sum(), of_rate(rates[0]) + of_rate(rates[1])
    found, expected = (torch.autograd.grad(x, rate, retain_graph=True)[0] for x in (together, one_by_one))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    start = torch.ones(2, 1, dtype=F64, requires_grad=True)
    options = {"solver": "implicit_euler", "step_size": 0.1}
    vmap(lambda x0: odeint(lambda t, x: -20 * x, x0, [0.0, 0.1], **options).x[-1])(start).sum().backward()
    torch.testing.assert_close(start.grad, torch.full_like(start, 1 / 3), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("solve", [of_rate, lambda rate: vmap(of_rate)(torch.stack([rate])).sum(), grad(of_rate)])
def test_plain_autograd_has_no_second_derivatives(solve):
    rate = torch.tensor(20.0, dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match=r"solver: got a diagonally implicit method to differentiate twice"):
        torch.autograd.grad(solve(rate), rate, create_graph=True)


def test_half_precision_and_complex_numbers():
    x0 = torch.tensor([1.0, 0.5])
    exact = odeint(smooth, x0.double(), [0.0, 1.0], solver="kvaerno5", rtol=1e-8, atol=1e-10).x[-1]
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):
        options = {"solver": "kvaerno5", "rtol": tolerance, "atol": tolerance}
        found = odeint(smooth, x0.to(dtype), [0.0, 1.0], **options).x[-1]
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=10 * tolerance)
    z0 = torch.tensor([0.5 + 0.5j], dtype=torch.complex128)
    found = odeint(lambda t, z: -1e4 * z**2, z0, [0.0, 1.0], solver="kvaerno5", rtol=1e-8, atol=1e-12).x[-1]
    torch.testing.assert_close(found, z0 / (1 + 1e4 * z0), rtol=1e-6, atol=1e-11)


def test_goes_on_after_events_and_pauses():
    x0 = torch.tensor([1.0], dtype=F64)
    options = {"solver": "kvaerno5", "rtol": 1e-8, "atol": 1e-10}
    crossing = Event(lambda t, x: x[0] - 0.5, jump=lambda t, x: x + 1.0)
    found = odeint(lambda t, x: -x, x0, [0.0, 2.0], events=crossing, save="dense", **options)
    first, second = math.log(2), math.log(2) + math.log(3)
    exact = [1.5 * math.exp(-(1.0 - first)), 1.5 * math.exp(-(2.0 - second))]
    torch.testing.assert_close(
        found.dense(torch.tensor([1.0, 2.0], dtype=F64)).flatten(), torch.tensor(exact).double(), rtol=1e-5, atol=0
    )
    whole = odeint(lambda t, x: -x, x0, [0.0, 2.0], **options).x[-1]
    half = odeint(lambda t, x: -x, x0, [0.0, 1.0], **options).resume([1.0, 2.0]).x[-1]
    torch.testing.assert_close(half, whole, rtol=1e-7, atol=0)


def test_pytrees_and_shapes():
    x0 = {"u": torch.ones(2, 3, dtype=F64), "v": torch.zeros(2, dtype=F64)}

    def f(t, x):
        return {"u": -1e3 * (x["u"] - x["v"].reshape(-1, 1)), "v": torch.cos(x["u"].mean(-1))}

    tight, loose = (
        odeint(f, x0, [0.0, 1.0], solver="kvaerno5", rtol=tol, atol=tol, stepping="per_sample").x
        for tol in (1e-9, 1e-5)
    )
    for name in x0:
        torch.testing.assert_close(loose[name], tight[name], rtol=1e-4, atol=1e-5)


def test_fixed_steps_take_many_iterations():
    """Where no step is tried again, the iteration goes on longer."""
    x0, span = torch.tensor([1.5], dtype=F64), [0.0, 1.0]
    sol = odeint(smooth, x0, span, solver="kvaerno5", step_size=0.25, rtol=1e-12, atol=1e-12)
    assert sol.stats.n_accepted == 4
    assert sol.stats.n_iterations > 10 * 4  # more than one stage may take with one Jacobian
    exact = odeint(smooth, x0, span, rtol=1e-10, atol=1e-12).x[-1]
    found = [abs(sol.x[-1] - exact).item()]
    for n in (8, 16):
        other = odeint(smooth, x0, span, solver="kvaerno5", step_size=1 / n, rtol=1e-12, atol=1e-12).x[-1]
        found.append(abs(other - exact).item())
    assert found[0] > 4 * found[1] > 16 * found[2] > 0, found


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_fixed_steps_find_the_root_that_is_the_solution(stepping):
    """A step of the implicit Euler method has two roots here; the slope at its start points to the wrong one."""
    step = torch.tensor([0.01, 0.05, 0.5], dtype=F64)
    p = 1 - 200 * step  # 200 h x^2 + (1 - 200 h) x = 2
    expected = (-p + (p**2 + 1600 * step).sqrt()) / (400 * step)
    x0, rates = torch.full((3, 1), 2.0, dtype=F64), 200 * step[:, None]
    options = {"solver": "implicit_euler", "step_size": 1.0, "rtol": 1e-9, "atol": 1e-12, "stepping": stepping}
    x = odeint(lambda t, x: -rates * (x - 1) * x, x0, [0.0, 1.0], **options).x[-1]
    torch.testing.assert_close(x[:, 0], expected, rtol=1e-8, atol=0)


def test_robertson_by_implicit_euler_steps():
    x0 = torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    x = odeint(rober, x0, [0.0, 40.0], args=(RATES,), solver="implicit_euler", step_size=0.1, rtol=1e-6, atol=1e-9).x[
        -1
    ]
    assert abs(x[0] - 0.7158) < 1e-3  # without a guard it ends at -0.86


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.parametrize("method", ["kvaerno5", pytest.param("kencarp4", marks=pytest.mark.slow)])
def test_compiled(method):
    """Per sample and jointly, with outputs within steps, which a compiled loop writes into buffers."""
    x0 = torch.tensor([[1.0, 0.0, 0.0]] * 2, dtype=F64)
    rates = torch.tensor([[0.8], [1.2]], dtype=F64) * RATES
    times = torch.tensor([0.0, 3.0, 10.0], dtype=F64)
    options = {"solver": method, "rtol": 1e-4, "atol": 1e-8, "stepping": "per_sample"}
    field = rober
    if method == "kencarp4":
        options["stepping"] = "joint"
        field = SplitField(rober, lambda t, x, rates: 0.01 * torch.cos(t) * x)

    def solve(x0, rates):
        found = odeint(field, x0, times, args=(rates,), **options)
        return found.x, found.stats.n_steps, found.stats.n_iterations, found.status_code

    with torch.no_grad():
        expected = solve(x0, rates)
        found = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0, rates)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-16)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("share", [0.7, 0.0])
def test_gradients_do_not_rest_on_a_jacobian_that_is_nearly_right(share):
    a = torch.tensor([[-3.0, 1.0], [2.0, -5.0]], dtype=F64, requires_grad=True)

    def loss(a, jac):
        x0 = torch.ones(2, dtype=F64)
        return (
            odeint(lambda t, x: a @ x, x0, [0.0, 1.0], solver=Kvaerno5(jac), rtol=1e-8, atol=1e-10).x[-1].square().sum()
        )

    (found,) = torch.autograd.grad(loss(a, lambda t, x: share * a.detach()), a)
    (expected,) = torch.autograd.grad(torch.linalg.matrix_exp(a).sum(-1).square().sum(), a)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
