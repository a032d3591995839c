"""A solver's estimates at its steps, and their gradients."""

import pytest
import torch
from torch import Tensor

from dyn_numerics import Controller, Dopri5, PIDController, RungeKutta4, Save, Tsit5, Verdict, odeint

OPTIONS = {"rtol": 1e-6, "atol": 1e-6, "save": Save(internals=True)}


def decay(t, x, rate):
    return -rate * x


@pytest.mark.parametrize("span", [[0.0, 1.0], [1.0, 0.0]])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_one_estimate_for_every_accepted_step(stepping, span):
    rate = torch.tensor([[1.0], [30.0]], dtype=torch.float64)
    x0 = torch.ones(2, 1, dtype=torch.float64)
    sol = odeint(decay, x0, span, args=(rate,), stepping=stepping, **OPTIONS)
    kept, counts = sol.internals, sol.stats.n_accepted.reshape(-1)
    lead = (2,) if stepping == "per_sample" else ()
    for values in (kept.dt, kept.error, kept.stiffness):
        assert values.shape == (counts.max(), *lead)
        assert torch.equal((values != 0).sum(0).reshape(-1), counts)
    sign = 1 if span[1] > span[0] else -1
    torch.testing.assert_close(kept.dt.sum(0), torch.full(lead, sign * 1.0, dtype=torch.float64), rtol=0, atol=1e-14)
    assert (kept.dt * sign >= 0).all()
    assert 0 < kept.error.max() <= 1e-6 * 2 * odeint(decay, x0, span, args=(rate,)).x.max()


@pytest.mark.parametrize("solver", [Dopri5(), Tsit5()])
def test_the_values_are_those_of_the_step(solver):
    """The embedded error of a linear problem, computed from the table; its stiffness is the rate."""
    rate, start, dt = 0.7, 2.0, 0.25
    steps = PIDController(first_step=dt, max_step=dt)
    x0 = torch.tensor([start], dtype=torch.float64)
    sol = odeint(decay, x0, [0.0, dt], args=(rate,), solver=solver, controller=steps, save=Save(internals=True))
    assert sol.internals.dt.tolist() == [dt]
    assert sol.internals.stiffness.item() == pytest.approx(rate, rel=1e-10)
    table, slopes = solver.tableau, []
    for row in table.a:
        slopes.append(-rate * (start + dt * sum(float(w) * k for w, k in zip(row, slopes, strict=False))))
    weights = [float(b - b_hat) for b, b_hat in zip(table.b, table.b_hat, strict=True)]
    error = abs(dt * sum(w * k for w, k in zip(weights, slopes, strict=True)))
    assert sol.internals.error.item() == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_gradients_against_differences_with_the_same_steps(stepping):
    x0 = torch.tensor([[1.0, 0.3], [0.2, -1.0]], dtype=torch.float64)

    def field(t, x, mu):
        return torch.stack([x[..., 1], mu * (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]], -1)

    def cost(mu) -> Tensor:
        steps = PIDController(first_step=0.1, max_step=0.1)  # loose tolerances: every step is as long as it may
        kept = odeint(
            field, x0, [0.0, 1.0], args=(mu,), stepping=stepping, controller=steps, rtol=1.0, atol=1.0,
            save=Save(internals=True),
        ).internals  # fmt: skip
        return (kept.error * kept.dt).sum() * 1e4 + kept.stiffness.sum()

    mu = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    cost(mu).backward()
    h = 1e-5
    with torch.no_grad():
        difference = (cost(mu + h) - cost(mu - h)) / (2 * h)
    assert abs(mu.grad.item()) > 1e-2
    torch.testing.assert_close(mu.grad, difference, rtol=1e-6, atol=0)


class Replayed(Controller):
    """Accepts steps of the sizes that another solve took, `[n]` or `[n, batch]`, whatever their errors."""

    def __init__(self, sizes: Tensor) -> None:
        super().__init__()
        self.sizes = sizes.abs()
        self.first_step = self.sizes.reshape(-1)[0].item()

    def init(self):
        return 0.0

    def judge(self, error, error_order, memory):
        here, after = self.size(memory), self.size(memory + 1)
        return Verdict(error < float("inf"), after / here, memory + 1)

    def size(self, i):
        last = len(self.sizes) - 1
        if isinstance(i, Tensor):
            return self.sizes.gather(0, i.long().clamp(max=last).unsqueeze(0))[0]
        return self.sizes[min(int(i), last)].item()


@pytest.mark.parametrize("span", [[0.0, 2.0], [2.0, 0.0]], ids=["forward", "reversed"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_the_regulariser_against_differences_at_the_steps_of_an_adaptive_solve(stepping, span):
    """Its gradient is that of the accepted steps: of a sum whose step sizes stay when the parameter moves."""
    x0 = torch.tensor([[1.0, 0.3], [0.2, -1.0]], dtype=torch.float64)

    def field(t, x, mu):
        angle, velocity = x.unbind(-1)
        push = torch.cos(t.squeeze(-1)) if t.dim() else torch.cos(t)
        return torch.stack([velocity, push - mu * torch.sin(3 * angle)], -1)

    def kept(mu, **options):
        options = {"rtol": 1e-5, "atol": 1e-7, "stepping": stepping, "save": Save(internals=True), **options}
        return odeint(field, x0, span, args=(mu,), solver="dopri5", **options).internals

    def cost(internals) -> Tensor:
        return (internals.error * internals.dt.abs()).sum()

    mu = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    adaptive = kept(mu, controller=PIDController(first_step=0.1))
    cost(adaptive).backward()
    sizes = adaptive.dt.detach()
    if stepping == "per_sample":
        assert (sizes[1, 0] - sizes[1, 1]).abs() > 1e-3
        sizes = torch.where(sizes == 0, sizes[0], sizes)  # after the last step of a sample
    assert len(sizes) > 5
    h = 1e-5
    with torch.no_grad():
        same = kept(mu, controller=Replayed(sizes))
        torch.testing.assert_close(same.dt, adaptive.dt.detach(), rtol=1e-12, atol=1e-15)
        above, below = (cost(kept(mu + step, controller=Replayed(sizes))) for step in (h, -h))
    assert mu.grad.abs() > 1e-8
    torch.testing.assert_close(mu.grad, (above - below) / (2 * h), rtol=1e-6, atol=0)


def test_a_sample_with_fewer_steps_adds_nothing():
    rate = torch.tensor([[1.0], [30.0]], dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, 1, dtype=torch.float64)
    sol = odeint(decay, x0, [0.0, 1.0], args=(rate,), stepping="per_sample", **OPTIONS)
    (both,) = torch.autograd.grad(sol.internals.error.sum(), rate)
    alone = rate[:1].detach().requires_grad_()
    of_one = odeint(decay, x0[:1], [0.0, 1.0], args=(alone,), stepping="per_sample", **OPTIONS)
    (single,) = torch.autograd.grad(of_one.internals.error.sum(), alone)
    torch.testing.assert_close(both[0], single[0], rtol=1e-12, atol=0)
    assert torch.isfinite(both).all()
    assert (both != 0).all()


def test_beside_other_forms():
    x0 = torch.ones(1, dtype=torch.float64)
    dense = odeint(lambda t, x: -x, x0, [0.0, 0.5, 1.0], save=Save("dense", internals=True))
    steps = odeint(lambda t, x: -x, x0, [0.0, 0.5, 1.0], save=Save("steps", internals=True))
    torch.testing.assert_close(steps.t.diff(), steps.internals.dt, rtol=0, atol=1e-15)
    assert torch.equal(dense.internals.dt, steps.internals.dt)
    torch.testing.assert_close(dense.dense(steps.t), steps.x, rtol=1e-14, atol=0)
    assert odeint(lambda t, x: -x, x0, [0.0, 1.0]).internals is None


def test_a_method_without_estimates_and_a_span_without_steps():
    x0 = torch.ones(1, dtype=torch.float64)
    kept = odeint(lambda t, x: -x, x0, [0.0, 0.5, 1.0], solver=RungeKutta4(), save=Save(internals=True)).internals
    assert kept.error is None
    assert kept.stiffness is None
    assert kept.dt.tolist() == [0.5, 0.5]
    assert odeint(lambda t, x: -x, x0, [1.0, 1.0], save=Save(internals=True)).internals.dt.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.complex128])
def test_dtypes(dtype):
    kept = odeint(lambda t, x: -x, torch.ones(3, dtype=dtype), [0.0, 1.0], save=Save(internals=True)).internals
    for values in (kept.error, kept.stiffness):
        assert values.dtype == {torch.complex128: torch.float64}.get(dtype, torch.float32)
        assert torch.isfinite(values).all()
        assert values[-1] > 0  # the first step is so short that slopes differ by less than half precision shows


@pytest.mark.parametrize("scale", [1e-22, 1e22])
@pytest.mark.parametrize("solver", ["dopri5", "tsit5"])
def test_scales_whose_squares_do_not_fit_into_float32(scale, solver):
    def solve(scale):
        rate = torch.tensor(3.0, requires_grad=True)
        x0 = torch.full((2,), scale)
        sol = odeint(lambda t, x: -rate * x, x0, [0.0, 1.0], solver=solver, step_size=0.25, save=Save(internals=True))
        (sol.internals.error.sum() / scale + sol.internals.stiffness.sum()).backward()
        return sol.internals.error.detach() / scale, sol.internals.stiffness.detach(), rate.grad

    for found, expected in zip(solve(scale), solve(1.0), strict=True):
        assert expected.abs().min() > 0
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)  # small differences of slopes


def test_bad_input():
    with pytest.raises(ValueError, match=r"save: got 'all', expected 't_span', 'steps', 'dense' or a Save"):
        Save("all")
    with pytest.raises(TypeError, match=r"internals: got a int, expected a truth value"):
        Save(internals=1)
