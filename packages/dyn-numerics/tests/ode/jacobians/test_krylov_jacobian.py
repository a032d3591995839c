"""The Jacobian that nobody makes: solutions, calls of the field, tolerances, preconditioning and gradients."""

import math

import pytest
import torch

from dyn_numerics import GMRES, BiCGStab, DenseJacobian, KrylovJacobian, Rodas5P, odeint
from dyn_numerics.contracts.finite_differences import check_gradients

D = torch.float64


def newton_matrix(neighbours, t, x, shift):
    return torch.eye(x.shape[-1], dtype=D) - shift * neighbours.jacobian(t, x)


@pytest.mark.parametrize("solver", [GMRES(), GMRES(restart=5), BiCGStab()], ids=repr)
@pytest.mark.parametrize("lead", [(), (4,)])
def test_residuals_are_within_the_accuracy(solver, lead, neighbours, random, context):
    """In units of the tolerance, of every sample; one call for the value, and one for each product."""
    rtol, accuracy = 1e-7, 0.02
    x, t, b = random(*lead, 60), random(*lead, seed=1), random(*lead, 60, seed=2)
    jacobian = KrylovJacobian(solver, accuracy).on(context(x, bool(lead), rtol=rtol))
    near = jacobian.linearise(neighbours, t, x)
    assert neighbours.calls == 1
    torch.testing.assert_close(near.slope, neighbours(t, x), rtol=0, atol=0)
    factors = jacobian.factorise(near.jacobian, 0.03)
    assert factors.singular.shape == lead
    with torch.no_grad():
        solved = jacobian.solve(neighbours, factors, b)
    assert solved.n_evals == 0, "Python has seen them"
    matrix = newton_matrix(neighbours, t, x, 0.03)
    residual = (b - (matrix @ solved.x.unsqueeze(-1)).squeeze(-1)) / (rtol * x.abs() + rtol)
    size = residual.square().mean(-1).sqrt()
    assert (size <= accuracy).all()
    assert size.max() > 1e-3 * accuracy, "and no more is done than was asked for"


def test_the_rate_comes_along(neighbours, random, context):
    x, t = random(5, 8), random(5, seed=1)
    near = KrylovJacobian().on(context(x, True)).linearise(neighbours, t, x, with_rate=True)
    assert neighbours.calls == 1
    torch.testing.assert_close(near.rate, neighbours.rate(t, x), rtol=0, atol=1e-14)


def test_products_are_calls(neighbours, random, context):
    """The identity is solved in a single step: one product for it, and one for the true residual."""
    x, t = random(8), random(1)[0]
    jacobian = KrylovJacobian().on(context(x))
    factors = jacobian.factorise(jacobian.linearise(neighbours, t, x).jacobian, 0.0)
    neighbours.calls = 0
    with torch.no_grad():
        found = jacobian.solve(neighbours, factors, random(8, seed=1))
    torch.testing.assert_close(found.x, random(8, seed=1), rtol=0, atol=1e-13)
    assert neighbours.calls == 2


def test_a_preconditioner_saves_products(random, context):
    """A diagonal of many magnitudes, preconditioned by itself."""
    rates = torch.logspace(0, 6, 50, dtype=D)
    calls = []

    def f(t, x):
        calls.append(t)
        return -rates * x - t.unsqueeze(-1) * x.roll(1, -1)

    x, t, b = random(3, 50), torch.tensor([0.1, 0.2, 0.3], dtype=D), random(3, 50, seed=1)
    shift = torch.tensor([0.1, 1.0, 10.0], dtype=D)

    def jacobi(t, x, shift):
        assert (t.shape, x.shape, shift.shape) == ((3,), (3, 50), (3,))
        return lambda v: v / (1 + shift.unsqueeze(-1) * rates)

    counts, found = [], []
    for preconditioner in (None, jacobi):
        jacobian = KrylovJacobian(GMRES(restart=60), preconditioner=preconditioner).on(context(x, True))
        factors = jacobian.factorise(jacobian.linearise(f, t, x).jacobian, shift)
        calls.clear()
        with torch.no_grad():
            found.append(jacobian.solve(f, factors, b).x)
        counts.append(len(calls))
    assert 4 * counts[1] < counts[0]
    dense = DenseJacobian()
    exact = dense.solve(f, dense.factorise(dense.linearise(f, t, x).jacobian, shift), b).x
    torch.testing.assert_close(found[1], exact, rtol=1e-6, atol=1e-6)


def test_what_is_singular_or_not_finite_stays_alone(neighbours, random, context):
    x, b, t = random(5, 12), random(5, 12, seed=1), torch.ones(5, dtype=D)
    x[3, 5] = torch.nan
    jacobian = KrylovJacobian(accuracy=1e-3).on(context(x, True))

    def f(t, x):
        return torch.where(torch.arange(5).unsqueeze(-1) == 1, 10 * x, neighbours(t, x))

    factors = jacobian.factorise(jacobian.linearise(f, t, x).jacobian, torch.full((5,), 0.1, dtype=D))
    with torch.no_grad():
        found = jacobian.solve(f, factors, b).x
    assert factors.singular.tolist() == [False, False, False, True, False]
    assert found[[1, 3]].isnan().all()
    good = [0, 2, 4]
    exact = torch.linalg.solve(newton_matrix(neighbours, t, x, 0.1)[good], b[good].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found[good], exact, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_gradients(lead, preconditioned, random, context):
    x, b, rate, t = random(*lead, 6), random(*lead, 6, seed=1), 1 + 0.1 * random(6, seed=2), random(*lead, seed=3)
    of_preconditioner = (lambda t, x, shift: lambda v: v.roll(1, -1) * 2) if preconditioned else None
    jacobian = KrylovJacobian(GMRES(rtol=1e-12), accuracy=1e-6, preconditioner=of_preconditioner)
    jacobian = jacobian.on(context(x, bool(lead), rtol=1e-6))

    def loss():
        f = lambda t, x: -rate * x**3 + torch.sin(t).unsqueeze(-1) * x.roll(1, -1)  # noqa: E731
        near = jacobian.linearise(f, t, x)
        found = jacobian.solve(f, jacobian.factorise(near.jacobian, 0.1), b + near.slope).x
        return (found**2).sum()

    check_gradients("KrylovJacobian", loss, {"x": x, "b": b, "rate": rate, "t": t})


def test_gradients_of_complex_states(random, context):
    parts = random(2, 5)

    def loss():
        x = torch.complex(parts[0], parts[1])
        f = lambda t, x: 1j * x**2 - x.roll(1, -1)  # noqa: E731
        jacobian = KrylovJacobian(GMRES(rtol=1e-12), accuracy=1e-6).on(context(x.detach()))
        near = jacobian.linearise(f, torch.zeros((), dtype=D), x)
        return jacobian.solve(f, jacobian.factorise(near.jacobian, 0.1), near.slope).x.abs().square().sum()

    check_gradients("KrylovJacobian", loss, {"parts": parts})


def test_derivatives_that_there_are_none_of(neighbours, random, context):
    x, t = random(4), torch.zeros((), dtype=D)
    jacobian = KrylovJacobian().on(context(x))

    def solve(x):
        near = jacobian.linearise(neighbours, t, x)
        return jacobian.solve(neighbours, jacobian.factorise(near.jacobian, 0.1), near.slope).x.sum()

    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacfwd):
        with pytest.raises(
            ValueError, match=r"KrylovJacobian whose solves torch\.func or a compiled program would have to"
        ):
            transform(solve)(x)
    with pytest.raises(ValueError, match="KrylovJacobian to differentiate twice, expected first derivatives"):
        torch.autograd.grad(solve(x.requires_grad_()), x, create_graph=True)


def test_arguments(random):
    with pytest.raises(TypeError, match=r"linear_solver: got the class GMRES, expected a LinearSolver; try GMRES\(\)"):
        KrylovJacobian(GMRES)
    with pytest.raises(ValueError, match=r"accuracy: got 0, expected a positive number of tolerances; try 0\.01"):
        KrylovJacobian(accuracy=0)
    with pytest.raises(TypeError, match=r"preconditioner: got a int, expected a function \(t, x, shift\) that returns"):
        KrylovJacobian(preconditioner=1)
    with pytest.raises(
        TypeError, match=r"preconditioner: got a function with the signature \(t, x\), .* \(t, x, shift"
    ):
        KrylovJacobian(preconditioner=lambda t, x: x)
    jacobian = KrylovJacobian()
    factors = jacobian.factorise(jacobian.linearise(lambda t, x: x, torch.zeros(()), torch.ones(2)).jacobian, 0.1)
    with pytest.raises(ValueError, match=r"jac: got a KrylovJacobian outside of a solve, .* try on\(context\) first"):
        jacobian.solve(lambda t, x: x, factors, torch.ones(2))


@pytest.mark.parametrize(
    ("preconditioner", "error", "message"),
    [
        (lambda t, x, shift: x, TypeError, r"preconditioner: returned a Tensor, expected a function of vectors"),
        (
            lambda t, x, shift: lambda v: None,
            TypeError,
            r"preconditioner: made a NoneType of a vector, .* a tensor \[3, 2\]",
        ),
        (
            lambda t, x, shift: torch.sum,
            ValueError,
            r"preconditioner: made \[\] of a vector \[3, 2\], expected its shape",
        ),
    ],
)
def test_a_preconditioner_that_is_wrong_is_named(preconditioner, error, message, random, context):
    x = random(3, 2)
    jacobian = KrylovJacobian(preconditioner=preconditioner).on(context(x, True))
    factors = jacobian.factorise(jacobian.linearise(lambda t, x: -x, torch.zeros(3, dtype=D), x).jacobian, 0.1)
    with pytest.raises(error, match=message):
        jacobian.solve(lambda t, x: -x, factors, x)


def test_samples_that_share_their_memory():
    x0 = torch.ones(2, dtype=D).expand(3, 2)
    sol = odeint(lambda t, x: -x, x0, [0.0, 1.0], solver=Rodas5P(KrylovJacobian()), stepping="per_sample", rtol=1e-8)
    torch.testing.assert_close(sol.x[-1], x0 * math.exp(-1), rtol=1e-6, atol=0)
