"""What is made of a Jacobian is differentiable: by autograd, by torch.func and by their compositions."""

import pytest
import torch

from dyn_numerics import BandedJacobian, BlockDiagonalJacobian, DenseJacobian
from dyn_numerics.contracts.finite_differences import check_gradients

D = torch.float64
KINDS = [DenseJacobian(), BandedJacobian(2, 2), BlockDiagonalJacobian(3)]


def solved(jacobian, t, x, rate, b, shift):
    """A number that depends on all that a kind of Jacobian makes, and on the field's own parameters."""
    size = x.shape[-1]

    def f(t, x):
        parts = x.unflatten(-1, (size // 3, 3))
        around = torch.stack([-parts[..., 0] * parts[..., 1], parts[..., 2] ** 2, parts.prod(-1)], -1)
        return (rate * torch.sin(t)[..., None, None] * around).flatten(-2) - x

    near = jacobian.linearise(f, t, x, with_rate=True)
    found = jacobian.solve(f, jacobian.factorise(near.jacobian, shift), b + near.slope).x
    return (found**2).sum(-1) + (near.rate * found).sum(-1)


def inputs(random, *lead, size=6):
    return {
        "t": random(*lead, seed=1),
        "x": random(*lead, size),
        "rate": random(3, seed=2),
        "b": random(*lead, size, seed=3),
        "shift": 0.1 + 0.05 * random(*lead, seed=4),
    }


@pytest.mark.parametrize("jacobian", KINDS, ids=repr)
@pytest.mark.parametrize("lead", [(), (1,), (4,)])
def test_gradients(jacobian, lead, random):
    given = inputs(random, *lead)
    check_gradients(repr(jacobian), lambda: solved(jacobian, **given).sum(), given)


@pytest.mark.parametrize("jacobian", KINDS, ids=repr)
@pytest.mark.parametrize("lead", [(), (1,), (3,)])
def test_compositions_of_transforms(jacobian, lead, random):
    """Forward mode equals reverse mode, second derivatives are symmetric, and lanes are computed alike."""
    given = inputs(random, *lead)

    def of(x, rate):
        return solved(jacobian, **{**given, "x": x, "rate": rate}).sum()

    x, rate = given["x"], given["rate"]
    gradient = torch.func.grad(of)(x, rate)
    for seed in (7, 8):
        v = random(*x.shape, seed=seed)
        forward = torch.func.jvp(lambda x: of(x, rate), (x,), (v,))[1]
        torch.testing.assert_close(forward, (gradient * v).sum(), rtol=1e-9, atol=1e-9)
    mixed = torch.func.jvp(lambda rate: torch.func.grad(of)(x, rate), (rate,), (torch.ones_like(rate),))[1]
    crossed = torch.func.grad(lambda x: torch.func.grad(of, argnums=1)(x, rate).sum())(x)
    torch.testing.assert_close(mixed, crossed, rtol=1e-8, atol=1e-8)

    step = 1e-4 * torch.ones_like(rate)
    differences = (torch.func.grad(of)(x, rate + step) - torch.func.grad(of)(x, rate - step)) / 2e-4
    torch.testing.assert_close(mixed, differences, rtol=1e-5, atol=1e-5)

    lanes = torch.stack([rate, 2 * rate])
    together = torch.func.vmap(torch.func.grad(of), in_dims=(None, 0))(x, lanes)
    torch.testing.assert_close(
        together, torch.stack([torch.func.grad(of)(x, lane) for lane in lanes]), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("jacobian", KINDS, ids=repr)
def test_a_singular_neighbour_has_no_part_in_a_gradient(jacobian, random):
    x, t = random(3, 6).requires_grad_(), torch.zeros(3, dtype=D)
    scale = torch.tensor([-1.0, 10.0, -2.0], dtype=D).unsqueeze(-1)

    def f(t, x):
        return scale * x

    near = jacobian.linearise(f, t, x)
    found = jacobian.solve(f, jacobian.factorise(near.jacobian, 0.1), near.slope).x
    (gradient,) = torch.autograd.grad(found[[0, 2]].sum(), x)
    expected = torch.tensor([-1 / 1.1, 0.0, -2 / 1.2], dtype=D).unsqueeze(-1).expand(3, 6)
    torch.testing.assert_close(gradient[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-12)


def test_gradients_of_the_users_own(random, context):
    x, rate = random(4), random(1, seed=2)
    state = context(x, args=(rate,))

    def loss():
        jacobian = DenseJacobian(lambda t, x, rate: torch.diag(3 * rate * x**2), check=True).on(state)
        near = jacobian.linearise(lambda t, x: rate * x**3, torch.zeros((), dtype=D), x)
        return jacobian.solve(None, jacobian.factorise(near.jacobian, -0.1), near.slope).x.sin().sum()

    check_gradients("jac", loss, {"x": x, "rate": rate})
