from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from dyn_numerics import RungeKutta2
from dyn_zoo import CNF

SENSITIVITIES = ["autograd", "adjoint"]
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
A = torch.tensor([[0.3, 0.8], [-0.5, 0.4]], dtype=torch.float64)


class Linear(nn.Module):
    """x' = A x + b, whose flow is known."""

    def __init__(self, a=A):
        super().__init__()
        self.a = nn.Parameter(a.clone())

    def forward(self, x):
        return x @ self.a.T


class OfTime(nn.Module):
    def __init__(self, dim, width=16, scale=1.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, width), nn.Tanh(), nn.Linear(width, dim))
        with torch.no_grad():
            self.net[0].weight.mul_(2 * scale)
            self.net[2].weight.mul_(2 * scale)

    def forward(self, t, x):
        return self.net(torch.cat([x, t.expand(len(x), 1)], 1))


def pulled_back_normal(a, t_span):
    """The density that x' = a x over t_span carries to the standard normal one."""
    flow = torch.linalg.matrix_exp((t_span[1] - t_span[0]) * a)
    return MultivariateNormal(torch.zeros(len(a)), precision_matrix=flow.T @ flow)


# --- densities that are known ---


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (0.0, 0.4), (1.0, 0.0), (-1.0, 0.5)])
def test_linear_flow(t_span):
    x = 2 * torch.randn(20, 2)
    flow = CNF(Linear(), 2, t_span=t_span, **TIGHT)
    torch.testing.assert_close(flow.log_prob(x), pulled_back_normal(A, t_span).log_prob(x), rtol=0, atol=1e-8)
    z, log_det = flow(x)
    length = t_span[1] - t_span[0]
    torch.testing.assert_close(z, x @ torch.linalg.matrix_exp(length * A).T, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_det, torch.full((20,), length * A.trace().item()), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dim", [1, 5])
def test_linear_flow_in_other_dimensions(dim):
    a, x = torch.randn(dim, dim), torch.randn(4, dim)
    flow = CNF(Linear(a), dim, **TIGHT)
    torch.testing.assert_close(flow.log_prob(x), pulled_back_normal(a, (0.0, 1.0)).log_prob(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_gradient_of_the_linear_flow(sensitivity):
    field, x = Linear(), torch.randn(5, 2, requires_grad=True)
    found = torch.autograd.grad(CNF(field, 2, sensitivity=sensitivity, **TIGHT).log_prob(x).sum(), [field.a, x])
    a = A.clone().requires_grad_()
    expected = torch.autograd.grad(pulled_back_normal(a, (0.0, 1.0)).log_prob(x).sum(), [a, x])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


def test_density_of_an_untrained_network_integrates_to_one():
    flow = CNF(OfTime(2, scale=2.0), 2, rtol=1e-5, atol=1e-5)
    edge, n = 9.0, 121
    axis = torch.linspace(-edge, edge, n)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(grid).exp()
    normal = torch.exp(-grid.square().sum(1) / 2) / (2 * math.pi)
    assert (density - normal).abs().max() > 0.05  # it is another one
    assert density.sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=1e-4)


# --- there and back ---


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (1.0, -0.5)])
def test_inverse(t_span):
    flow, x = CNF(OfTime(3), 3, t_span=t_span, **TIGHT), torch.randn(6, 3)
    z, log_det = flow(x)
    back, log_det_back = flow.inverse(z)
    assert (z - x).abs().max() > 0.1
    assert log_det.abs().max() > 0.01
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-8)


def test_log_det_is_that_of_the_whole_map():
    flow, x = CNF(OfTime(3), 3, **TIGHT), torch.randn(4, 3)
    _, log_det = flow(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x)[0].sum(0), x)  # [3, 4, 3]
    torch.testing.assert_close(log_det, jacobian.permute(1, 0, 2).det().abs().log(), rtol=0, atol=1e-7)


def test_log_prob_belongs_to_the_map():
    flow, x = CNF(OfTime(2), 2, **TIGHT), torch.randn(6, 2)
    z, log_det = flow(x)
    normal = -z.square().sum(1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_prob(x), normal + log_det, rtol=0, atol=1e-12)


# --- samples ---


def test_samples_of_the_linear_flow():
    n = 40_000
    flow = CNF(Linear(), 2, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        x = flow.sample(n, generator=torch.Generator().manual_seed(0))
    covariance = pulled_back_normal(A, (0.0, 1.0)).covariance_matrix
    assert x.mean(0).abs().max() < 4 * (covariance.diagonal().max() / n).sqrt()
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=4 * covariance.max().item() * math.sqrt(2 / n))
    assert (covariance - torch.eye(2)).abs().max() > 0.2


def test_samples_follow_the_generator():
    flow = CNF(OfTime(2), 2)
    one, two = (flow.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, flow.sample(5, generator=torch.Generator().manual_seed(4)))
    torch.manual_seed(3)
    assert torch.equal(one, flow.sample(5))
    state = torch.get_rng_state()
    flow.sample(5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_are_those_of_the_inverse_without_its_trace():
    field = OfTime(2)
    flow = CNF(field, 2, **TIGHT)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    expected, _ = flow.inverse(z)
    x = flow.sample(5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-8)
    (gradient,) = torch.autograd.grad(x.sum(), field.net[2].bias)
    (other,) = torch.autograd.grad(expected.sum(), field.net[2].bias)
    torch.testing.assert_close(gradient, other, rtol=0, atol=1e-7)


def test_samples_have_the_dtype_of_the_model():
    trainable = RungeKutta2(0.5, trainable=True)  # whose alpha is of float64
    assert CNF(OfTime(2).float(), 2, solver=trainable, step_size=0.1).sample(3).dtype == torch.float32
    assert CNF(OfTime(2), 2).float().sample(3).dtype == torch.float32
    assert CNF(OfTime(2), 2).sample(3).dtype == torch.float64
    assert CNF(lambda x: -x, 2).sample(3).shape == (3, 2)


# --- as a module ---


@pytest.mark.parametrize("as_function", [False, True])
def test_both_sensitivities_give_the_same_gradients(as_function):
    field, x = OfTime(2), torch.randn(8, 2, requires_grad=True)
    found = []
    for sensitivity in SENSITIVITIES:
        flow = CNF((lambda t, x: field(t, x)) if as_function else field, 2, sensitivity=sensitivity, **TIGHT)
        found.append(torch.autograd.grad(flow.log_prob(x).mean(), [x, *field.parameters()]))
    for one, two in zip(*found, strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_learns_a_scale(sensitivity):
    flow = CNF(Linear(torch.zeros(2, 2)), 2, sensitivity=sensitivity)
    x = torch.randn(256, 2) * torch.tensor([3.0, 0.5])
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=15, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    entropy = MultivariateNormal(torch.zeros(2), x.T.cov()).entropy().item()
    assert closure().item() == pytest.approx(entropy, abs=0.02)


def test_settings_reach_the_solver():
    calls = []
    flow = CNF(lambda t, x: calls.append(t.item()) or -x, 2, solver="rk4", step_size=0.25, t_span=(0.0, 1.0))
    flow.log_prob(torch.ones(1, 2))
    assert len(calls) == 16
    trainable = CNF(OfTime(2), 2, solver=RungeKutta2(0.5, trainable=True), step_size=0.25)
    trainable.log_prob(torch.ones(1, 2)).sum().backward()
    assert trainable.flow.solver.alpha.grad.abs() > 0


def test_copies_pickles_and_loads():
    flow, x = CNF(OfTime(2), 2), torch.randn(3, 2)
    expected = flow.log_prob(x)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin.log_prob(x), expected)
    other = CNF(OfTime(2), 2)
    assert not torch.equal(other.log_prob(x), expected)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.log_prob(x), expected)
    assert "dim=2" in repr(flow)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_trains_under_autocast(sensitivity):
    flow, x = CNF(OfTime(2), 2, sensitivity=sensitivity).float(), torch.randn(5, 2, dtype=torch.float32)
    plain = flow.log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = flow.log_prob(x)
    assert value.dtype == torch.float32
    assert not torch.equal(value, plain)
    torch.testing.assert_close(value, plain, rtol=0, atol=0.05)
    value.sum().backward()
    assert all(p.grad.isfinite().all() for p in flow.parameters())


# --- errors ---


@pytest.mark.parametrize("shape", [(2,), (4, 3), (4, 1), (4, 2, 1), ()])
@pytest.mark.parametrize("call", ["forward", "inverse", "log_prob"])
def test_refuses_points_of_another_shape(shape, call):
    with pytest.raises(ValueError, match=r"x: got shape .*, expected \[batch, 2\]"):
        getattr(CNF(OfTime(2), 2), call)(torch.ones(shape))


def test_takes_an_empty_batch():
    assert CNF(OfTime(2), 2).log_prob(torch.ones(0, 2)).shape == (0,)


@pytest.mark.parametrize("dim", [0, -1])
def test_refuses_a_dimension(dim):
    with pytest.raises(ValueError, match=f"dim: got {dim}, expected a positive"):
        CNF(OfTime(2), dim)


@pytest.mark.parametrize("dim", ["2", 2.0, True])
def test_refuses_a_dimension_that_is_no_integer(dim):
    with pytest.raises(TypeError, match="dim: got a"):
        CNF(OfTime(2), dim)


def test_refuses_points_that_are_no_tensor():
    with pytest.raises(TypeError, match="x: got a list"):
        CNF(OfTime(2), 2).log_prob([[0.0, 0.0]])


BAD_TIMES = [(0.0,), (0.0, 0.5, 1.0), (1.0, 1.0), (), (0.0, math.nan)]


@pytest.mark.parametrize("t_span", BAD_TIMES)
def test_refuses_times(t_span):
    with pytest.raises(ValueError, match=r"t_span: got .*, expected"):
        CNF(OfTime(2), 2, t_span=t_span)


def test_refuses_what_cannot_be_a_field():
    with pytest.raises(TypeError, match="vector_field: got a int"):
        CNF(3, 2)
    with pytest.raises(ValueError, match=r"vector_field: returned shape \[4, 3\], expected \[4, 2\]"):
        CNF(nn.Linear(2, 3), 2).log_prob(torch.ones(4, 2))
    with pytest.raises(ValueError, match="solver: got 'tsit'"):
        CNF(OfTime(2), 2, solver="tsit")
    with pytest.raises(ValueError, match="sensitivity: got 'x'"):
        CNF(OfTime(2), 2, sensitivity="x")
