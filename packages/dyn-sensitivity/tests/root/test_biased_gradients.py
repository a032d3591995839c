"""Phantom, Jacobian-free and SHINE gradients: against the truncated series and inverse that they promise."""

from __future__ import annotations

import pytest
import torch

from dyn_numerics import Broyden
from dyn_sensitivity import JacobianFree, Phantom, Unrolled, fixed_point, root_find

TIGHT = {"rtol": 1e-13, "atol": 1e-13}


def h(z, a):
    return torch.tanh(z @ (0.3 * a)) + torch.cos(a.sum(0))


def problem():
    """A map, its fixed points, and Jacobians there, by z and by the matrix a."""
    a = torch.randn(3, 3, requires_grad=True)
    z = fixed_point(h, torch.zeros(2, 3), args=(a,), **TIGHT).z.detach()
    by_z, by_a = torch.func.jacrev(h, (0, 1))(z, a.detach())
    by_z = torch.stack([by_z[i, :, i] for i in range(2)])  # [2, 3, 3]
    return a, z, by_z, by_a.reshape(2, 3, 9)


def gradient(a, weight, **options):
    z = fixed_point(h, torch.zeros(2, 3), args=(a,), **TIGHT, **options).z
    return torch.autograd.grad((weight * z).sum(), a)[0].flatten()


@pytest.mark.parametrize(("steps", "damping"), [(1, 1.0), (1, 0.6), (4, 1.0), (5, 0.7)])
def test_a_phantom_gradient_is_the_truncated_neumann_series(steps, damping):
    a, _, by_z, by_a = problem()
    weight, unit = torch.randn(2, 3), torch.eye(3)
    step = unit + damping * (by_z - unit)
    series = damping * sum(torch.matrix_power(step, k) for k in range(steps))
    expected = torch.einsum("bi,bij,bjk->k", weight, series, by_a)
    torch.testing.assert_close(
        gradient(a, weight, sensitivity=Phantom(steps, damping)), expected, rtol=1e-10, atol=1e-12
    )
    if (steps, damping) == (1, 1.0):
        torch.testing.assert_close(gradient(a, weight, sensitivity=JacobianFree()), expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient(a, weight, sensitivity="jacobian_free"), expected, rtol=1e-10, atol=1e-12)


def test_the_bias_of_a_phantom_gradient_falls_at_the_rate_of_the_map():
    a, _, by_z, _ = problem()
    weight = torch.randn(2, 3)
    exact = gradient(a, weight)
    errors = [(gradient(a, weight, sensitivity=Phantom(steps)) - exact).norm() for steps in (10, 20)]
    radius = torch.linalg.eigvals(by_z).abs().max()
    assert radius.item() ** 10 / 10 < (errors[1] / errors[0]).item() < radius.item() ** 10 * 10


def test_values_are_those_of_the_search():
    a = torch.randn(3, 3)
    plain = fixed_point(h, torch.zeros(2, 3), args=(a,), solver="broyden").z
    for sensitivity in ("implicit", "phantom", "jacobian_free", "shine", Unrolled()):
        z = fixed_point(h, torch.zeros(2, 3), args=(a.requires_grad_(),), solver="broyden", sensitivity=sensitivity).z
        assert torch.equal(z, plain)
        assert z.requires_grad


def test_unrolled_gradients_are_those_of_the_steps():
    a, x = torch.tensor(0.5, requires_grad=True), torch.tensor([[3.0]], requires_grad=True)
    options = {"solver": "fixed_point", "max_steps": 3, "throw": False}
    z, _ = fixed_point(lambda z: a * z + 1, x, sensitivity="unrolled", **options)
    gradients = torch.autograd.grad(z.sum(), (a, x))  # of a**3 x + a**2 + a + 1
    assert [g.item() for g in gradients] == pytest.approx([3 * 0.25 * 3 + 2 * 0.5 + 1, 0.125], rel=1e-14)


@pytest.mark.parametrize("is_root", [True, False])
def test_shine_uses_the_inverse_of_the_search(is_root):
    """Of a linear problem it is exact where the search began with the Jacobian, and in one unknown after an update."""
    options = {"sensitivity": "shine", **TIGHT}
    for size, jacobian in ((3, "exact"), (1, -1.0)):
        matrix = 0.3 * torch.randn(size, size)
        x = torch.randn(4, size, requires_grad=True)
        options["solver"] = Broyden(memory=20, jacobian=jacobian)
        if is_root:
            z, _ = root_find(lambda z, x, m=matrix: z @ m.mT + x - z, torch.zeros(4, size), args=(x,), **options)
        else:
            z, _ = fixed_point(lambda z, x, m=matrix: z @ m.mT + x, torch.zeros(4, size), args=(x,), **options)
        exact = torch.linalg.inv(torch.eye(size) - matrix).sum(0).expand(4, size)
        torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], exact, rtol=1e-6, atol=1e-6)


def test_shine_is_nearer_to_the_gradient_than_one_step():
    """The nearer, the better the Jacobian at the start was; and biased all the same."""
    a = (0.8 * torch.randn(8, 8) / 8**0.5).requires_grad_()
    x = torch.randn(16, 8)

    def gradient(**options):
        z, _ = fixed_point(lambda z, a: torch.tanh(z @ a + x), torch.zeros(16, 8), args=(a,), **TIGHT, **options)
        return torch.autograd.grad(z.sin().sum(), a)[0]

    exact = gradient()
    free, constant, start = (
        (gradient(solver=Broyden(memory=30, jacobian=jacobian), sensitivity=sensitivity) - exact).norm() / exact.norm()
        for sensitivity, jacobian in (("jacobian_free", -1.0), ("shine", -1.0), ("shine", "exact"))
    )
    assert 1e-4 < start < 0.6 * constant
    assert constant < 0.8 * free


def test_shine_after_its_memory_was_full():
    """Only updates since then belong to the inverse, which explains the last change that it learnt from."""
    matrix, x = 0.8 * torch.randn(6, 6) / 6**0.5, torch.randn(1, 6, requires_grad=True)
    iterates = []

    def g(z, x):
        iterates.append(z.detach())
        return z @ matrix.mT + x - z

    solver = Broyden(memory=5, jacobian=-1.0)
    z, stats = root_find(g, torch.zeros(1, 6), args=(x,), solver=solver, sensitivity="shine", rtol=1e-8, atol=0.0)
    assert stats.n_steps.item() > 8
    assert stats.n_steps.item() % 4 != 0  # the memory holds some of its four updates
    weight = torch.randn(1, 6)
    (found,) = torch.autograd.grad((weight * z).sum(), x)
    step = iterates[-3] - iterates[-4]  # the last iterate is evaluated once more, and taught nothing
    change = step @ matrix.mT - step
    torch.testing.assert_close(-(found * change).sum(), (weight * step).sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "anderson"}, r"solver: got Anderson\(.*\) with sensitivity='shine', expected Broyden's method"),
        ({"solver": "broyden", "compact": True}, "sensitivity: got 'shine' with compact=True"),
    ],
)
def test_shine_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(torch.cos, torch.zeros(2, 1), sensitivity="shine", **options)


def test_shine_refuses_a_start_that_is_solved():
    a = torch.tensor(0.0, requires_grad=True)
    with pytest.raises(ValueError, match="z0: solves the equations with sensitivity='shine'"):
        fixed_point(lambda z: a * z, torch.zeros(2, 1), solver="broyden", sensitivity="shine")


@pytest.mark.parametrize("sensitivity", ["phantom", "jacobian_free"])
def test_steps_of_the_map_are_refused_for_roots(sensitivity):
    with pytest.raises(ValueError, match=r"sensitivity: got .* in root_find, expected a fixed point"):
        root_find(torch.sin, torch.ones(2, 1), sensitivity=sensitivity)


@pytest.mark.parametrize("sensitivity", ["phantom", "unrolled", "shine"])
def test_second_derivatives_and_transforms_work(sensitivity):
    def loss(a):
        z, _ = fixed_point(
            lambda z, a: torch.tanh(z * a) + a,
            torch.full((1, 1), 0.3),
            args=(a,),
            solver="broyden",
            sensitivity=sensitivity,
            **TIGHT,
        )
        return z.sum()

    a = torch.tensor(0.4, requires_grad=True)
    (first,) = torch.autograd.grad(loss(a), a, create_graph=True)
    (second,) = torch.autograd.grad(first, a)
    torch.testing.assert_close(torch.func.grad(loss)(a.detach()), first.detach(), rtol=1e-7, atol=0)
    torch.testing.assert_close(
        torch.func.jvp(loss, (a.detach(),), (torch.tensor(1.0),))[1], first.detach(), rtol=1e-7, atol=0
    )
    torch.testing.assert_close(torch.func.grad(torch.func.grad(loss))(a.detach()), second, rtol=1e-6, atol=0)


@pytest.mark.parametrize("memory", [3, 20])
def test_shine_of_a_sample_does_not_depend_on_slower_ones(memory):
    """It ends long before them; what their steps propose for it is not learnt."""
    weight = torch.tensor([[0.5, -0.3], [0.2, 0.4]], dtype=torch.float64)
    easy, hard = torch.tensor([[0.1, 0.02, 0.1]]).double(), torch.tensor([[0.9, -0.5, 2.4], [-0.7, 0.1, 2.9]]).double()

    def gradient(b):
        b = b.clone().requires_grad_()
        z, stats = fixed_point(
            lambda z, b: torch.tanh(z @ weight * b[:, 2:] + b[:, :2]),
            torch.zeros(len(b), 2, dtype=torch.float64),
            args=(b,),
            solver=Broyden(memory, update="bad", jacobian=-1.0),
            sensitivity="shine",
            atol=1e-10,
            rtol=1e-10,
        )
        return torch.autograd.grad(z[0].sum(), b)[0][0], stats.n_steps

    (alone, few), (beside, steps) = gradient(easy), gradient(torch.cat([easy, hard]))
    assert steps[0] == few[0]
    assert steps[1:].min() > few[0]
    torch.testing.assert_close(beside, alone, rtol=1e-12, atol=1e-14)
