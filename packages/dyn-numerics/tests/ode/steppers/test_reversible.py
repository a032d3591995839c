"""Reversible methods: against their formulas, there and back, and where they are stable."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from dyn_numerics import (
    AsynchronousLeapfrog,
    Bosh3,
    Dopri5,
    Dopri8,
    Event,
    Heun,
    PartedStatesError,
    ReversibleHeun,
    ReversibleRungeKutta,
    Save,
    Status,
    odeint,
)
from dyn_numerics.loop import is_supported
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative

D = torch.float64
METHODS = {
    "reversible_heun": ReversibleHeun,
    "alf": AsynchronousLeapfrog,
    **{base: partial(ReversibleRungeKutta, base) for base in ("midpoint", "dopri5")},
}
each_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
both_directions = pytest.mark.parametrize("span", [(0.0, 50.0), (50.0, 0.0)], ids=["forward", "reversed"])


def pendulum(t, x):
    """Driven, so that time matters; it neither grows nor decays."""
    return torch.stack([x[..., 1], -(1 + 0.1 * torch.cos(t)) * torch.sin(x[..., 0])], -1)


def rotation(t, x):
    """Linear, at a speed that depends on time."""
    return (1 + 0.5 * torch.sin(t)).unsqueeze(-1) * torch.stack([x[..., 1], -x[..., 0]], -1)


def start(dtype=D):
    return torch.tensor([1.0, 0.3], dtype=dtype) * (1 + 0.2j if dtype.is_complex else 1)


def field(t, x):
    return torch.cos(t).unsqueeze(-1) * x + 0.3 * x.flip(-1)


@pytest.fixture
def numbers():
    x = torch.tensor([1.0, -2.0, 0.5], dtype=D)
    return x, x + torch.tensor([0.01, 0.02, -0.03], dtype=D), torch.tensor([0.3, -0.1, 0.2], dtype=D)


def at(t):
    return torch.tensor(t, dtype=D)


@pytest.mark.parametrize(("t0", "t1"), [(0.2, 0.7), (0.7, 0.2)])
class TestFormulas:
    def test_reversible_heun(self, t0, t1, numbers):
        x, z, slope = numbers
        step = ReversibleHeun().step(field, t0, t1, x, (z, slope))
        ahead = 2 * x - z + (t1 - t0) * slope
        last = field(at(t1), ahead)
        torch.testing.assert_close(step.x, x + (t1 - t0) / 2 * (slope + last), rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(step.carry, (ahead, last), rtol=1e-14, atol=1e-15)
        euler = x + (t1 - t0) * slope
        torch.testing.assert_close(step.error, step.x - euler, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("eta", [1.0, 0.8])
    def test_asynchronous_leapfrog(self, eta, t0, t1, numbers):
        x, _, v = numbers
        step = AsynchronousLeapfrog(eta).step(field, t0, t1, x, v)
        u = field(at(0.45), x + (t1 - t0) / 2 * v)
        after = v + 2 * eta * (u - v)
        torch.testing.assert_close(step.carry, after, rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(step.x, x + (t1 - t0) / 2 * (v + after), rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(step.error, (t1 - t0) / 2 * (after - v), rtol=1e-14, atol=1e-15)

    @pytest.mark.parametrize("coupling", [1.0, 0.9])
    @pytest.mark.parametrize("base", [Heun, Bosh3, Dopri8])
    def test_reversible_runge_kutta(self, base, coupling, t0, t1, numbers):
        x, z, _ = numbers
        method = ReversibleRungeKutta(base(), coupling)
        step = method.step(field, t0, t1, x, z)
        there = base().step(field, t0, t1, z, None)
        expected = coupling * x + (1 - coupling) * z + (there.x - z)
        torch.testing.assert_close(step.x, expected, rtol=1e-14, atol=1e-14)
        back = base().step(field, t1, t0, expected, None)
        torch.testing.assert_close(step.carry, z - (back.x - expected), rtol=1e-14, atol=1e-14)
        if there.error is None:
            assert step.error is None
        else:
            norm = torch.linalg.vector_norm
            assert method.measure_error(step, norm) == pytest.approx(base().measure_error(there, norm).item())


@each_method
@both_directions
@pytest.mark.parametrize("f", [pendulum, rotation])
@pytest.mark.parametrize("dtype", [D, torch.complex128])
def test_a_thousand_steps_and_their_inverses(make, span, f, dtype):
    """Of unequal steps, carry included; the base's coupling of 0.999 magnifies rounding by e."""
    if dtype.is_complex and f is pendulum:
        pytest.skip("the sine of complex numbers grows without bound")
    method, x0 = make(), start(dtype)
    times = [span[0] + (span[1] - span[0]) * (i + 0.3 * math.sin(i)) / 1000 for i in range(1001)]
    x, carry = x0, method.init(f, at(times[0]), x0, None)
    first, states = carry, []
    for t0, t1 in pairwise(times):
        states.append(x)
        step = method.step(f, t0, t1, x, carry)
        x, carry = step.x, step.carry
    assert (x - x0).abs().max() > 0.1
    most = 0.0
    for t0, t1 in reversed(list(pairwise(times))):
        x, carry = method.inverse_step(f, t0, t1, x, carry)
        most = max(most, (x - states.pop()).abs().max().item())
    assert most < (1e-10 if isinstance(method, ReversibleRungeKutta) else 1e-12)
    torch.testing.assert_close(carry, first, rtol=0, atol=1e-10)


@pytest.mark.parametrize("base", ["rk4", "bosh3", "dopri8"])
def test_dense_output_of_states_that_have_parted(base):
    """It meets both states, and its slope at the end is the field there, whatever else was stepped meanwhile."""
    method = ReversibleRungeKutta(base, coupling=0.5)
    x0, z0 = start(), start() + at([0.02, -0.03])
    with torch.no_grad():
        step = method.step(pendulum, 0.2, 0.7, x0, z0)
        method.step(pendulum, 0.7, 1.9, 3 * x0, 2 * z0)
        coefficients = method.interpolant(pendulum, 0.2, 0.7, x0, step)
    torch.testing.assert_close(evaluate(coefficients, at(0.0)), x0, rtol=0, atol=1e-13)
    torch.testing.assert_close(evaluate(coefficients, at(1.0)), step.x, rtol=0, atol=1e-13)
    if base == "rk4":
        slope = 0.5 * pendulum(at(0.7), step.x) + (method.coupling - 1) * (x0 - z0)
        torch.testing.assert_close(evaluate_derivative(coefficients, at(1.0)), slope, rtol=0, atol=1e-13)


@pytest.mark.parametrize("eta", [0.6, 0.9])
def test_damping_is_undone(eta):
    method, x, v = AsynchronousLeapfrog(eta), start(), at([0.2, -0.4])
    step = method.step(pendulum, 0.3, 0.5, x, v)
    torch.testing.assert_close(method.inverse_step(pendulum, 0.3, 0.5, step.x, step.carry), (x, v), rtol=0, atol=1e-14)


def growth(method, q, steps=400):
    """By how much `x' = q x` grows in so many steps of length 1, from any state and carry."""

    def f(t, x):
        return q * x

    x = torch.tensor([1.0 + 0j, 1.0 + 0j], dtype=torch.complex128)
    x = x * torch.tensor([1.0, 0.7j], dtype=torch.complex128)
    carry = method.init(f, at(0.0), x, None)
    carry = tuple(1.1 * c for c in carry) if isinstance(carry, tuple) else 1.1 * carry
    most = 0.0
    for i in range(steps):
        step = method.step(f, float(i), float(i + 1), x, carry)
        x, carry = step.x, step.carry
        if i == steps // 2:
            most = x.abs().max().item()
    return x.abs().max().item() / most


@pytest.mark.parametrize(
    ("make", "stable", "unstable"),
    [
        (ReversibleHeun, [0.5j, 0.98j, -0.98j], [1.05j, -1.05j, -0.05, -0.5, 0.5j - 0.05]),
        (AsynchronousLeapfrog, [0.5j, 0.98j, -0.98j], [1.05j, -1.05j, -0.05, -0.5, 0.5j - 0.05]),
        (partial(AsynchronousLeapfrog, 0.8), [-0.1, -0.3, 0.1j - 0.2], [1.05j, -1.0]),
        # The eigenvalues of the map of (x, z) with exact stability functions say so.
        (partial(ReversibleRungeKutta, "heun", 1.0), [0.5j, 1.55j], [1.6j, -0.05]),
        (partial(ReversibleRungeKutta, "heun", 0.9), [0.3j, -0.1, 0.1j - 0.1], [1.5j, -0.2]),
        (partial(ReversibleRungeKutta, "rk4", 0.9), [-0.1, 0.1j - 0.1], [-0.2, 0.2j - 0.2]),
    ],
    ids=["reversible_heun", "alf", "damped alf", "heun, 1", "heun, 0.9", "rk4, 0.9"],
)
def test_where_they_are_stable(make, stable, unstable):
    with torch.no_grad():
        assert all(growth(make(), q) < 2 for q in stable)
        assert all(growth(make(), q) > 5 for q in unstable)


@pytest.mark.parametrize(
    ("solver", "start", "per_attempt"),
    [
        ("reversible_heun", 2, 1),
        ("alf", 2, 1),
        (ReversibleRungeKutta("bosh3"), 2, 8),
        (ReversibleRungeKutta("dopri5"), 2, 14),
        (ReversibleRungeKutta(Dopri8()), 2, 24),
    ],
    ids=["reversible_heun", "alf", "bosh3", "dopri5", "dopri8"],
)
def test_counts_of_an_adaptive_solve(solver, start, per_attempt, counted):
    f = counted(lambda t, x: torch.cos(20 * t) * 5 * x)
    stats = odeint(f, torch.ones(2, dtype=D), [0.0, 0.4], solver=solver, rtol=1e-4).stats
    assert f.calls == stats.n_evals == start + per_attempt * stats.n_steps.item()


@each_method
@pytest.mark.parametrize("reverse", [False, True])
def test_two_pieces_are_one_solve(make, reverse):
    t = torch.linspace(0, 3, 7, dtype=D)
    t = t.flip(0) if reverse else t
    options = {"solver": make(), "step_size": 0.125}
    whole = odeint(pendulum, start(), t, **options)
    first = odeint(pendulum, start(), t[:4], **options)
    second = first.resume(t[3:])
    torch.testing.assert_close(torch.cat([first.x, second.x[1:]]), whole.x, rtol=0, atol=1e-15)
    assert second.stats.n_evals + first.stats.n_evals == whole.stats.n_evals


@each_method
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_starts_again_after_a_jump(make, stepping):
    """Everything is exact to order 2 at least before and behind the jump; a carry from before it would be far off."""
    event = Event(lambda t, x: x[..., 0] - 2.0, jump=lambda t, x: -x)
    x0 = torch.tensor([[1.0, 0.5], [1.5, 0.5]], dtype=D)
    x0 = x0 if stepping == "per_sample" else x0[0]
    errors = []
    for step_size in (0.02, 0.01):
        sol = odeint(
            lambda t, x: x, x0, [0.0, 1.2], solver=make(), step_size=step_size, stepping=stepping, events=event
        )
        expected = -x0 * math.exp(1.2)
        errors.append((sol.x[-1] - expected).abs().max().item())
    assert errors[0] < 1e-3
    assert errors[1] < errors[0] / 3


@each_method
def test_gradients_to_all_times_and_the_start(make):
    def solve(x0, t):
        return odeint(pendulum, x0, t, solver=make(), step_size=0.3).x.sin().sum()

    x0, t = start().requires_grad_(), torch.tensor([0.0, 0.4, 1.3], dtype=D, requires_grad=True)
    found = torch.autograd.grad(solve(x0, t), (x0, t))
    h = 1e-6
    for i, (value, gradient) in enumerate(zip((x0, t), found, strict=True)):
        for j in range(len(value)):
            moved = [[v.detach().clone() for v in (x0, t)] for _ in range(2)]
            moved[0][i][j] += h
            moved[1][i][j] -= h
            # Steps of chosen size move along with the start.
            up, down = (solve(*values) for values in moved)
            if (i, j) != (1, 2):
                assert gradient[j].item() == pytest.approx(((up - down) / (2 * h)).item(), abs=1e-7)


@each_method
def test_vmap_and_forward_mode(make):
    x0 = torch.tensor([[1.0, 0.3], [0.2, -0.5]], dtype=D)

    def solve(x0):
        return odeint(pendulum, x0, [0.0, 0.5, 1.0], solver=make(), step_size=0.1).x[-1]

    torch.testing.assert_close(torch.func.vmap(solve)(x0), torch.stack([solve(x) for x in x0]), rtol=0, atol=1e-14)
    forward, backward = torch.func.jacfwd(solve)(x0[0]), torch.func.jacrev(solve)(x0[0])
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-12)


@each_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(make, dtype):
    """Slopes that half precision holds, but not their product with a step of that size."""
    x0 = torch.tensor([1.0, -2.0], dtype=dtype)
    sol = odeint(lambda t, x: -1e-4 * x, x0, [0.0, 1e4], solver=make(), step_size=500.0)
    torch.testing.assert_close(sol.x[-1], x0 * math.exp(-1), rtol=20 * torch.finfo(dtype).eps, atol=0)


@each_method
def test_samples_are_solved_to_the_bit_wherever_they_stand(make):
    x0 = torch.tensor([[1.0, 0.3], [0.2, -0.5], [2.0, 0.1]], dtype=D)
    t = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.2, 2.5], [2.0, 0.0, 2.5]], dtype=D)
    order = torch.tensor([2, 0, 1])

    def solve(rows, compact=False):
        options = {"rtol": 1e-4} if make().error_order else {"step_size": 0.07}
        with torch.no_grad():
            return odeint(
                lambda t, x: torch.cos(t) * torch.sin(x),
                x0[rows],
                t[:, rows],
                solver=make(),
                stepping="per_sample",
                compact=compact,
                **options,
            ).x

    straight = solve(torch.arange(3))
    assert torch.equal(solve(order), straight[:, order])
    assert torch.equal(solve(order, compact=True), straight[:, order])


def test_internals_of_a_reversible_method():
    sol = odeint(pendulum, start(), [0.0, 1.0], solver=ReversibleRungeKutta("dopri5"), save=Save(internals=True))
    assert torch.isfinite(sol.internals.error).all()
    assert 0.1 < sol.internals.stiffness.max() < 10


def test_a_trainable_base_is_trained():
    method = ReversibleRungeKutta(Dopri5(trainable=True))
    assert {name for name, _ in method.named_parameters()} == {"base.a_entries", "base.b_entries"}
    odeint(pendulum, start(), [0.0, 1.0], solver=method, step_size=0.25).x[-1].sum().backward()
    assert all(p.grad.abs().max() > 0 for p in method.parameters())


@pytest.mark.parametrize("eta", [0.5, 0.0, 1.1, -1.0, math.nan])
def test_damping_out_of_range(eta):
    with pytest.raises(ValueError, match=r"eta: got .*, expected a number in \(1/2, 1\]; try 1\.0"):
        AsynchronousLeapfrog(eta)


@pytest.mark.parametrize("coupling", [0.0, 1.001, -0.5, math.inf])
def test_coupling_out_of_range(coupling):
    with pytest.raises(ValueError, match=r"coupling: got .*, expected a number in \(0, 1\]; try 0\.999"):
        ReversibleRungeKutta("bosh3", coupling)


def test_what_is_no_number():
    with pytest.raises(TypeError, match="eta: got a str, expected a number"):
        AsynchronousLeapfrog("1")
    with pytest.raises(TypeError, match="coupling: got a bool, expected a number"):
        ReversibleRungeKutta("bosh3", True)


@pytest.mark.parametrize(
    ("base", "got"), [(ReversibleHeun(), "a ReversibleHeun"), (Dopri5, "the class Dopri5"), ("alf", "'alf'")]
)
def test_a_base_that_is_no_explicit_runge_kutta_method(base, got):
    with pytest.raises(TypeError, match=f"base: got {got}, expected an explicit Runge-Kutta method or its name"):
        ReversibleRungeKutta(base)


def test_a_base_of_no_name():
    with pytest.raises(ValueError, match=r"^base: got 'dopri_5', .* did you mean 'dopri5'"):
        ReversibleRungeKutta("dopri_5")


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.parametrize(
    ("solver", "stepping"),
    [("alf", "joint"), (ReversibleRungeKutta("bosh3"), "per_sample")],
    ids=["alf", "bosh3"],
)
def test_compiled(solver, stepping):
    torch._dynamo.reset()
    x0 = torch.tensor([[1.0, 0.3], [0.2, -0.5]], dtype=D)

    def solve(x0, t):
        return odeint(
            lambda t, x: torch.cos(t) * torch.sin(x), x0, t, solver=solver, stepping=stepping, rtol=1e-3, atol=1e-4
        )

    with torch.no_grad():
        expected = solve(x0, torch.linspace(0, 1, 4, dtype=D))
        found = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0, torch.linspace(0, 1, 4, dtype=D))
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-11)
    assert torch.equal(found.stats.n_evals, expected.stats.n_evals)


def approaching(t, x):
    """Velocities that approach each other: the two states of a reversible method part."""
    return torch.stack([x[..., 1], 2 * (1 - x[..., 1])], -1)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_states_that_part_are_a_failure(stepping):
    """Such solves used to end as successes, with errors of 1e10 where the tolerance is 1e-6."""
    x0 = torch.tensor([[0.0, 10.0], [1.0, -20.0]], dtype=D)
    options = {"rtol": 1e-6, "atol": 1e-6, "stepping": stepping, "throw": False}
    sol = odeint(approaching, x0, [0.0, 20.0], solver=ReversibleRungeKutta("tsit5", 1.0), **options)
    code = torch.as_tensor(sol.status_code)
    assert (code == Status.STATES_PARTED.code).all()
    assert sol.x[-1].isnan().all()
    with pytest.raises(PartedStatesError, match=r"The two states of a reversible method parted.*lower the coupling"):
        sol.raise_if_failed()
    # A coupling keeps them together, by shorter steps.
    sol = odeint(approaching, x0, [0.0, 20.0], solver=ReversibleRungeKutta("tsit5", 0.9), **options)
    exact = torch.stack([x0[:, 0] + 20 + (x0[:, 1] - 1) / 2, torch.ones(2, dtype=D)], -1)
    assert (sol.x[-1] - exact).abs().max() < 1e-2
