"""`torch.func` around an eager adaptive solve."""

import math

import pytest
import torch
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from dyn_numerics import Callbacks, FixedStep, odeint

D = torch.float64
T_SPAN = torch.linspace(0, 1.5, 5, dtype=D)
MODES = {
    "tsit5": {"solver": "tsit5", "rtol": 1e-8, "atol": 1e-8},
    "dopri5 on t_span": {"solver": "dopri5", "controller": FixedStep()},
    "rk4 step_size": {"solver": "rk4", "step_size": 0.05},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())


def field(t, x, p):
    return p * torch.cos(t) * torch.sin(x)


def solve(x0, p=1.0, t=T_SPAN, **mode):
    return odeint(lambda t, x: field(t, x, p), x0, t, **mode).x


@pytest.fixture
def x0():
    return torch.randn(4, 3, dtype=D, generator=torch.Generator().manual_seed(0))


@each_mode
def test_vmap_over_initial_states_is_a_loop(mode, x0):
    found = vmap(lambda x: solve(x, **mode))(x0)
    expected = torch.stack([solve(x, **mode) for x in x0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@each_mode
def test_vmap_over_parameters_and_times(mode, x0):
    p = torch.tensor([0.5, 1.0, 2.0, 5.0], dtype=D)
    ends = torch.tensor([1.0, 2.0, -1.0, 1.5], dtype=D)

    def one(p, end):
        return solve(x0[0], p, end * torch.linspace(0, 1, 5, dtype=D), **mode)

    found = vmap(one)(p, ends)
    torch.testing.assert_close(
        found, torch.stack([one(a, b) for a, b in zip(p, ends, strict=True)]), rtol=0, atol=1e-11
    )


def test_every_lane_has_its_own_steps_and_status(x0):
    def one(x, p):
        sol = odeint(lambda t, x: field(t, x, p), x, T_SPAN, rtol=1e-6, throw=False)
        return sol.stats.n_steps, sol.status_code

    p = torch.tensor([1.0, 1.0, 1.0, 40.0], dtype=D)
    n_steps, code = vmap(one)(x0, p)
    for i in range(4):
        assert (n_steps[i], code[i]) == one(x0[i], p[i])
    assert n_steps[3] > n_steps[0]


def test_a_failed_lane_is_nan_and_leaves_the_others():
    def one(x):
        return odeint(lambda t, x: torch.where(x > 1.5, torch.nan, x), x, T_SPAN).x

    x = vmap(one)(torch.tensor([[0.1], [1.0], [2.0]], dtype=D))
    assert x[0].isfinite().all()
    assert x[1:, -1].isnan().all()
    torch.testing.assert_close(x[0, :, 0], 0.1 * torch.exp(T_SPAN), rtol=1e-3, atol=0)


def difference(f, x, eps=1e-6):
    columns = []
    for i in range(x.numel()):
        step = torch.zeros_like(x).reshape(-1)
        step[i] = eps
        step = step.reshape(x.shape)
        columns.append((f(x + step) - f(x - step)) / (2 * eps))
    return torch.stack(columns, -1).reshape((*columns[0].shape, *x.shape))


@each_mode
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(mode, jacobian, x0):
    def f(x):
        return solve(x, **mode)

    torch.testing.assert_close(jacobian(f)(x0[0]), difference(f, x0[0]), rtol=0, atol=1e-6)
    p = torch.tensor(0.8, dtype=D)

    def g(p):
        return solve(x0[0], p, **mode)

    torch.testing.assert_close(jacobian(g)(p), difference(g, p), rtol=0, atol=1e-6)


@each_mode
def test_compositions(mode, x0):
    def loss(x, p):
        return solve(x, p, **mode)[1:].pow(2).sum()

    p = torch.tensor(0.8, dtype=D)
    per_sample = vmap(grad(loss, argnums=1), (0, None))(x0, p)
    expected = torch.stack([difference(lambda p, x=x: loss(x, p), p) for x in x0])
    torch.testing.assert_close(per_sample, expected, rtol=0, atol=1e-5)

    summed = grad(lambda p: vmap(loss, (0, None))(x0, p).sum())(p)
    torch.testing.assert_close(summed, expected.sum(), rtol=0, atol=1e-5)

    hessian = jacfwd(jacrev(loss))(x0[0], p)
    curvature = difference(lambda x: jacrev(loss)(x, p), x0[0])
    torch.testing.assert_close(hessian, curvature, rtol=0, atol=1e-4)


@each_mode
def test_products(mode, x0):
    def f(x):
        return solve(x, **mode)[-1]

    tangent = torch.ones(3, dtype=D)
    value, pushed = jvp(f, (x0[0],), (tangent,))
    full = difference(f, x0[0])
    torch.testing.assert_close(pushed, full @ tangent, rtol=0, atol=1e-6)
    _, pull = vjp(f, x0[0])
    torch.testing.assert_close(pull(tangent)[0], full.T @ tangent, rtol=0, atol=1e-6)
    torch.testing.assert_close(value, f(x0[0]), rtol=0, atol=1e-12)


def test_what_has_to_read_values_says_so():
    def solve(x, **options):
        return odeint(lambda t, x: -x, x, [0.0, 1.0], **options).x

    for name, value in {"callbacks": Callbacks(), "progress": True, "compact": True}.items():
        stepping = "per_sample" if name == "compact" else "joint"
        with pytest.raises(ValueError, match=f"{name}: got one under torch.func"):
            torch.func.vmap(lambda x, o={name: value}, s=stepping: solve(x, stepping=s, **o))(torch.ones(3, 1, 1))


def test_dense_output_under_vmap():
    def half_way(x):
        return odeint(lambda t, x: -x, x, [0.0, 1.0], save="dense", rtol=1e-8, atol=1e-8).dense(0.5)

    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(half_way)(x), x * math.exp(-0.5), rtol=1e-6, atol=0)


def test_per_sample_stepping_under_transforms(x0):
    def f(x):
        return solve(x, stepping="per_sample", rtol=1e-8, atol=1e-8)[-1]

    expected = difference(f, x0)
    for jacobian in (jacrev, jacfwd):
        torch.testing.assert_close(jacobian(f)(x0), expected, rtol=0, atol=1e-6)
    stacked = torch.stack([x0, -x0, 2 * x0])
    torch.testing.assert_close(vmap(f)(stacked), torch.stack([f(x) for x in stacked]), rtol=0, atol=1e-11)


def test_an_ensemble_of_networks():
    net = torch.nn.Linear(2, 2).double()
    stacked = {name: torch.stack([p, 0.5 * p]) for name, p in net.named_parameters()}
    x0 = torch.ones(2, dtype=D)

    def one(params):
        return odeint(lambda t, x: functional_call(net, params, (x,)), x0, [0.0, 1.0], rtol=1e-8).x[-1]

    found = vmap(one)(stacked)
    for i in range(2):
        alone = one({name: p[i] for name, p in stacked.items()})
        torch.testing.assert_close(found[i], alone, rtol=0, atol=1e-11)
