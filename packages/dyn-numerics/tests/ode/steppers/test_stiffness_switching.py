"""The automatic choice: who steps, when it changes, and that nothing else does."""

import pytest
import torch

from dyn_numerics import Bosh3, DenseJacobian, Dopri5, Rodas5P, Rosenbrock23, Status, StiffnessSwitching, Tsit5, odeint
from dyn_numerics.loop import is_supported

D = torch.float64
MU = torch.tensor([1.0, 5.0, 30.0, 200.0, 1000.0], dtype=D)
SPAN = torch.stack([torch.zeros(5, dtype=D), 2 * MU.clamp(min=10)])


def van_der_pol(t, x, mu):
    return torch.stack([x[..., 1], mu * (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]], -1)


def started(n):
    return torch.tensor([2.0, 0.0], dtype=D).repeat(n, 1)


def solve(mu, span, solver="auto", rtol=1e-5, **options):
    x0 = started(len(mu))
    return odeint(
        van_der_pol, x0, span, solver=solver, rtol=rtol, atol=1e-2 * rtol, args=(mu,), stepping="per_sample", **options
    )


def fading(t, x, rate, size=1.0):
    """Follows `size cos t`: fast until about t = 1, then at the rate 1."""
    k = 1 + rate * torch.sigmoid(40 * (1 - t))
    return -k * (x - size * torch.cos(t)) - size * torch.sin(t)


class CountingJacobian(DenseJacobian):
    """Counts what is made of it."""

    def __init__(self):
        super().__init__()
        self.counts = {"linearise": 0, "factorise": 0}

    def linearise(self, *args, **options):
        self.counts["linearise"] += 1
        return super().linearise(*args, **options)

    def factorise(self, *args):
        self.counts["factorise"] += 1
        return super().factorise(*args)


def test_every_sample_steps_about_as_seldom_as_with_the_better_method():
    explicit = solve(MU[:3], SPAN[:, :3], "dopri5").stats.n_steps
    implicit = solve(MU, SPAN, "rodas5p").stats.n_steps
    better = torch.cat([torch.minimum(explicit, implicit[:3]), implicit[3:]])
    ratio = solve(MU, SPAN).stats.n_steps / better
    assert ratio.max() < 1.2, ratio
    assert ratio.min() > 0.8, ratio


def test_what_is_not_stiff_is_what_the_explicit_method_finds():
    found, expected = solve(MU[:2], SPAN[:, :2]), solve(MU[:2], SPAN[:, :2], "dopri5")
    assert torch.equal(found.stats.n_factorisations[:1], torch.zeros(1, dtype=torch.int64))
    assert torch.equal(found.x[:, 0], expected.x[:, 0])
    assert torch.equal(found.stats.n_steps[0], expected.stats.n_steps[0])


def test_what_is_stiff_is_mostly_stepped_by_the_implicit_method():
    stats = solve(MU[4:], SPAN[:, 4:]).stats
    assert stats.n_factorisations > 0.3 * stats.n_steps
    assert stats.n_factorisations < stats.n_steps  # it starts, and returns, to the explicit one


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_it_switches_back(stepping):
    jac = CountingJacobian()
    x0, t = torch.ones(1, 1, dtype=D) * 1.5, [0.0, 1.0, 40.0]
    options = {"solver": StiffnessSwitching(implicit=Rodas5P(jac)), "rtol": 1e-6, "atol": 1e-8, "stepping": stepping}
    early = odeint(fading, x0, [0.0, 0.8], args=(1e4,), **options).stats
    assert early.n_factorisations.sum() > 4
    jac.counts["factorise"] = 0
    stats = odeint(fading, x0, t, args=(1e4,), **options).stats
    assert stats.n_factorisations.sum() == jac.counts["factorise"]
    assert early.n_factorisations.sum() < stats.n_factorisations.sum() < 0.5 * stats.n_steps.sum()


def test_switching_back_saves_nothing_of_the_accuracy():
    x0, t = torch.full((1,), 1.5, dtype=D), torch.linspace(0, 10, 41, dtype=D)
    for rtol in (1e-4, 1e-6, 1e-8):
        x = odeint(fading, x0, t, args=(1e4,), solver="auto", rtol=rtol, atol=rtol).x[:, 0]
        error = (x - torch.cos(t))[1:].abs().max().item()
        assert error < 100 * rtol, (rtol, error)


def test_evaluations_equal_a_counter(counted):
    f = counted(van_der_pol)
    for mu in (2.0, 300.0):
        f.times.clear()
        x0 = torch.tensor([2.0, 0.0], dtype=D)
        sol = odeint(f, x0, [0.0, 200.0], solver="auto", args=(mu,), rtol=1e-4)
        assert sol.stats.n_evals == f.calls
    f.times.clear()
    sol = odeint(f, started(5), SPAN, solver="auto", args=(MU,), rtol=1e-4, stepping="per_sample", save="t_span")
    assert sol.stats.n_evals == f.calls


def test_joint_is_a_batch_of_one():
    for mu, end in ((2.0, 20.0), (500.0, 900.0)):
        x0 = torch.tensor([2.0, 0.0], dtype=D)
        joint = odeint(van_der_pol, x0, [0.0, end], solver="auto", args=(mu,), rtol=1e-6, atol=1e-8)
        alone = odeint(
            van_der_pol, x0[None], [0.0, end], solver="auto", args=(mu,), rtol=1e-6, atol=1e-8, stepping="per_sample"
        )
        torch.testing.assert_close(joint.x, alone.x[:, 0], rtol=1e-9, atol=1e-11)
        assert joint.stats.n_steps == alone.stats.n_steps
        assert joint.stats.n_factorisations == alone.stats.n_factorisations


def test_samples_do_not_notice_their_order_or_neighbours():
    order = torch.tensor([3, 0, 4, 2, 1])
    found, permuted = solve(MU, SPAN), solve(MU[order], SPAN[:, order])
    assert torch.equal(found.x[:, order], permuted.x)
    assert torch.equal(found.stats.n_steps[order], permuted.stats.n_steps)
    part = solve(MU[1:4], SPAN[:, 1:4])
    assert torch.equal(found.x[:, 1:4], part.x)


def test_a_failing_neighbour_changes_nothing():
    broken = MU.clone()
    broken[2] = torch.nan
    found, expected = solve(broken, SPAN, throw=False), solve(MU, SPAN)
    good = torch.tensor([0, 1, 3, 4])
    assert found.status[2] is Status.NON_FINITE
    assert torch.equal(found.x[:, good], expected.x[:, good])


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_gradients_across_switches(stepping):
    """The solution is `size cos t + (x0 - size) exp(-K)`, with the integral K of the rate."""
    size = torch.tensor([[0.7]], dtype=D, requires_grad=True)
    x0 = torch.tensor([[1.5]], dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 2e-4, 0.9, 3.0], dtype=D)
    sol = odeint(fading, x0, t, args=(3e3, size), solver="auto", rtol=1e-7, atol=1e-9, stepping=stepping)
    assert 4 < sol.stats.n_factorisations.sum() < 0.8 * sol.stats.n_steps.sum()
    transient = torch.exp(-t[1] * 3001)
    expected = {1: (torch.cos(t[1]) - transient, transient), 2: (torch.cos(t[2]), 0.0), 3: (torch.cos(t[3]), 0.0)}
    for i, exact in expected.items():
        found = torch.autograd.grad(sol.x[i].sum(), (size, x0), retain_graph=True)
        for gradient, value in zip(found, exact, strict=True):
            assert abs(gradient.item() - float(value)) < 1e-5, (i, gradient, value)


def test_forward_mode_and_vmap():
    t = torch.tensor([0.0, 0.02, 0.1], dtype=D)

    def at_end(size):
        x0 = torch.full((1,), 0.8, dtype=D)
        return odeint(fading, x0, t, args=(1e4, size), solver="auto", rtol=1e-5, atol=1e-7).x[-1]

    size = torch.tensor([0.5, 0.7], dtype=D)
    batched = torch.func.vmap(at_end)(size)
    torch.testing.assert_close(batched[:, 0], size * torch.cos(t[-1]), rtol=1e-5, atol=0)
    torch.testing.assert_close(batched[0], at_end(size[0]), rtol=1e-9, atol=1e-10)
    _, tangent = torch.func.jvp(at_end, (size[0],), (torch.ones((), dtype=D),))
    torch.testing.assert_close(tangent[0], torch.cos(t[-1]), rtol=1e-5, atol=0)


def test_backward_in_time():
    """A mirrored problem takes the same steps."""
    options = {"solver": "auto", "rtol": 1e-6, "atol": 1e-8, "args": (1e4,)}
    x0 = torch.full((1,), 1.5, dtype=D)
    forward = odeint(fading, x0, [0.0, 3.0], **options)
    backward = odeint(lambda t, x, rate: -fading(-t, x, rate), x0, [0.0, -3.0], **options)
    torch.testing.assert_close(backward.x, forward.x, rtol=1e-12, atol=1e-14)
    assert torch.equal(backward.stats.n_factorisations, forward.stats.n_factorisations)
    assert forward.stats.n_factorisations > 4


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_robertson(rtol):
    """Bari Test Set for IVP Solvers."""

    def rober(t, x):
        a, b, c = 0.04 * x[..., 0], 1e4 * x[..., 1] * x[..., 2], 3e7 * x[..., 1] ** 2
        return torch.stack([-a + b, a - b - c, c], -1)

    x0 = torch.tensor([1.0, 0.0, 0.0], dtype=D)
    expected = torch.tensor([2.083340149701255e-08, 8.333360770334713e-14, 0.999999979166505], dtype=D)
    x = odeint(
        rober, x0, [0.0, 1e11], solver="auto", rtol=rtol, atol=rtol * torch.tensor([1e-8, 1e-14, 1.0], dtype=D)
    ).x[-1]
    assert ((x - expected).abs() / expected).max() < 100 * rtol


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
def test_compiled_equals_eager():
    mu, span, x0 = MU[[0, 3]], SPAN[:, [0, 3]], started(2)

    def solve(x0, t):
        return odeint(van_der_pol, x0, t, solver="auto", args=(mu,), rtol=1e-6, atol=1e-8, stepping="per_sample")

    found = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0, span)
    expected = solve(x0, span)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-9, atol=1e-11)
    for name in ("n_steps", "n_accepted", "n_factorisations"):
        assert torch.equal(getattr(found.stats, name), getattr(expected.stats, name)), name


def test_other_methods():
    options = {"rtol": 1e-7}
    sol = solve(MU[3:4], SPAN[:, 3:4], StiffnessSwitching(Tsit5(), Rodas5P(), to_implicit=3, to_explicit=2), **options)
    assert 0 < sol.stats.n_factorisations < sol.stats.n_steps
    exact = solve(MU[3:4], SPAN[:, 3:4], "rodas5p", rtol=1e-10).x[-1]
    torch.testing.assert_close(sol.x[-1], exact, rtol=1e-4, atol=1e-6)


def test_bad_arguments():
    with pytest.raises(TypeError, match="explicit: got a Rodas5P, expected an explicit Runge-Kutta method"):
        StiffnessSwitching(Rodas5P())
    with pytest.raises(TypeError, match=r"explicit: got a Dopri5, .* with the coefficients of its table"):
        StiffnessSwitching(Dopri5(trainable=True))
    with pytest.raises(TypeError, match="implicit: got a Dopri5, expected an implicit method"):
        StiffnessSwitching(implicit=Dopri5())
    with pytest.raises(ValueError, match=r"orders \(4, 2\), expected the same order"):
        StiffnessSwitching(implicit=Rosenbrock23())
    with pytest.raises(TypeError, match="explicit: got a Bosh3"):
        StiffnessSwitching(Bosh3(), Rosenbrock23())
    with pytest.raises(ValueError, match="to_implicit: got 0, expected a positive integer"):
        StiffnessSwitching(to_implicit=0)
