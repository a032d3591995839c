"""The Levenberg-Marquardt method: order, singular Jacobians, scaling, local minima."""

import math

import pytest
import torch

from dyn_numerics import LevenbergMarquardt, RootStatus, root_find
from dyn_numerics.loop import is_supported

D = torch.float64


def rosenbrock(z):
    a, b = z.unbind(-1)
    return torch.stack([10 * (b - a * a), 1 - a], -1)


def freudenstein_roth(z):
    a, b = z.unbind(-1)
    return torch.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b], -1)


def row(*values, dtype=D):
    return torch.tensor([values], dtype=dtype)


def iterates(g, z0, count, **options):
    """The iterates 1 to `count`, which are the best ones, and their residuals."""
    sols = [root_find(g, z0, max_steps=k, rtol=1e-15, atol=0.0, throw=False, **options) for k in range(1, count + 1)]
    return torch.stack([sol.z for sol in sols]), torch.stack([sol.residual for sol in sols])


def measured_orders(errors):
    """Slopes of the logarithm of each error over that of the last, where they are small and above rounding."""
    logs = errors.log()
    triples = zip(logs, logs[1:], logs[2:], strict=False)
    return [((b - a) / (a - last)).item() for last, a, b in triples if last < -2 and b > -33]


def test_order_is_two_at_a_regular_root():
    def g(z):
        a, b = z.unbind(-1)
        return torch.stack([a * a + b * b - 5, torch.exp(a - 1) + a * b - 3], -1)

    z, _ = iterates(g, row(1.4, 2.3), 6, solver="levenberg_marquardt")
    orders = measured_orders((z - row(1.0, 2.0)).norm(dim=-1).squeeze(1))
    assert len(orders) >= 2
    assert all(1.8 < order < 2.6 for order in orders)


def test_singular_jacobian_on_the_way_is_no_obstacle():
    """Where Newton's method has no step."""

    def g(z):
        a, b = z.unbind(-1)
        return torch.stack([a * b - 1, a - b], -1)

    z0 = row(1.0, -1.0)
    assert root_find(g, z0, solver="newton", throw=False).status == [RootStatus.SINGULAR]
    sol = root_find(g, z0, solver="levenberg_marquardt", rtol=1e-12)
    torch.testing.assert_close(sol.z.abs(), torch.ones(1, 2, dtype=D), rtol=1e-9, atol=0)


def test_damping_that_is_no_number_is_raised():
    """In float32 it is zero, and so is the column of the Jacobian that has to be damped."""
    g = lambda z: torch.stack([z[:, 0] - 3, z[:, 0] * (z[:, 1] - 1)], -1)  # noqa: E731
    z0 = row(0.0, 2.0, dtype=torch.float32)
    sol = root_find(g, z0, solver=LevenbergMarquardt(damping=1e-50), rtol=1e-5)
    torch.testing.assert_close(sol.z, row(3.0, 1.0, dtype=torch.float32), rtol=1e-4, atol=0)


def test_step_that_hardly_lowers_the_residual_is_not_taken():
    """Newton's method on arctan cycles from 1.3917452; from a little nearer it falls by a millionth."""
    sol = root_find(torch.atan, row(1.39174), solver=LevenbergMarquardt(damping=1e-12), max_steps=1, throw=False)
    assert sol.stats.n_evals.item() > 3


def test_singular_root():
    """Powell's singular function: rank 2 at the root, where the error is the square root of the residual."""

    def g(z):
        a, b, c, d = z.unbind(-1)
        return torch.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2], -1)

    sol = root_find(g, row(3.0, -1.0, 0.0, 1.0), solver="levenberg_marquardt", rtol=1e-12, atol=1e-12)
    assert sol.z.abs().max().item() < 3e-6
    assert sol.stats.n_steps.item() < 25


def test_order_is_two_at_a_line_of_roots():
    """The Jacobian is singular at every root; the error falls quadratically all the same."""

    def g(z):
        a, b = z.unbind(-1)
        return torch.stack([a * a + b * b - 1, 3 * (a * a + b * b - 1)], -1)

    z, _ = iterates(g, row(0.3, 2.0), 12, solver="levenberg_marquardt")
    orders = measured_orders((z.norm(dim=-1) - 1).abs().squeeze(1))
    assert len(orders) >= 2
    assert all(1.8 < order < 2.6 for order in orders)


def test_ill_conditioned_jacobian_keeps_its_digits():
    """Hilbert's matrix of size 8 has condition 1.5e10, and the normal equations the square of that."""
    i = torch.arange(8, dtype=D)
    hilbert = 1 / (i[:, None] + i + 1)
    right = hilbert.sum(1)
    sol = root_find(
        lambda z: z @ hilbert - right, torch.zeros(1, 8, dtype=D), solver="levenberg_marquardt", rtol=1e-14, atol=0.0
    )
    torch.testing.assert_close(sol.z, torch.ones(1, 8, dtype=D), rtol=0, atol=1e-5)
    assert sol.stats.n_steps.item() < 25


@pytest.mark.parametrize("scaled", [True, False])
def test_units_of_the_unknowns_do_not_matter_with_scaling(scaled):
    unit = row(1e4, 1e-3)
    options = {"solver": LevenbergMarquardt(scaled=scaled), "count": 8}
    z, _ = iterates(rosenbrock, row(-1.2, 1.0), **options)
    other, _ = iterates(lambda z: rosenbrock(z / unit), row(-1.2, 1.0) * unit, **options)
    difference = (other / unit - z).abs().max().item()
    assert difference < 1e-9 if scaled else difference > 1e-2


def test_residual_falls_with_every_step():
    _, residual = iterates(rosenbrock, row(-1.2, 1.0), 14, solver="levenberg_marquardt")
    assert bool((residual.diff(dim=0) < 0).all())


def test_first_step_is_that_of_the_damped_equations():
    """With D of column norms, `(J^T J + damping D^2) step = -J^T f`."""
    z0 = row(-1.2, 1.0)
    sol = root_find(rosenbrock, z0, solver=LevenbergMarquardt(damping=0.4), max_steps=1, throw=False)
    jacobian = torch.tensor([[24.0, 10.0], [-1.0, 0.0]], dtype=D)
    normal = jacobian.T @ jacobian
    step = torch.linalg.solve(normal + 0.4 * torch.diag(normal.diagonal()), jacobian.T @ rosenbrock(z0)[0])
    torch.testing.assert_close(sol.z[0], z0[0] - step, rtol=1e-12, atol=0)
    assert sol.stats.n_evals.item() == 3


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_local_minimum_is_stagnation(dtype):
    """The known one of Freudenstein and Roth's function, |g|^2 = 48.98, beside a sample that finds the root."""
    z0 = torch.tensor([[0.5, -2.0], [6.0, 3.5]], dtype=dtype)
    sol = root_find(freudenstein_roth, z0, solver="levenberg_marquardt", throw=False)
    assert sol.status == [RootStatus.STAGNATED, RootStatus.CONVERGED]
    exact = torch.tensor([[(53 - 4 * 22**0.5) / 3, (2 - 22**0.5) / 3], [5, 4]], dtype=dtype)
    torch.testing.assert_close(sol.z, exact, rtol=1e-6 if dtype is D else 2e-3, atol=0)
    assert sol.residual[0].item() == pytest.approx(math.sqrt(48.98425 / 2), rel=1e-6)
    assert sol.stats.n_steps[0].item() < 30
    assert sol.stats.n_evals.item() < (35 if dtype is D else 30)


def test_samples_that_have_ended_try_nothing():
    """The first is soon the float64 next to the root, from where no damping lowers the residual."""
    z0 = torch.tensor([[1.41], [1000.0]], dtype=D)
    options = {"solver": "levenberg_marquardt", "rtol": 1e-15, "atol": 1e-15}
    alone = root_find(lambda z: z**2 - 2, z0[1:], **options)
    both = root_find(lambda z: z**2 - 2, z0, **options)
    assert both.residual[0].item() > 0
    assert both.stats.n_steps.tolist() == [3, alone.stats.n_steps.item()]
    assert alone.stats.n_steps.item() > 10
    assert both.stats.n_evals == alone.stats.n_evals


def test_jacobian_that_is_not_finite():
    g = lambda z: z.abs().sqrt() - 1  # noqa: E731
    sol = root_find(g, torch.tensor([[0.0], [2.0]], dtype=D), solver="levenberg_marquardt", throw=False)
    assert sol.status == [RootStatus.SINGULAR, RootStatus.CONVERGED]
    assert sol.z[1].item() == pytest.approx(1)


def test_residual_that_is_not_finite_shortens_the_step():
    sol = root_find(lambda z: torch.log(z) + 3, row(1.5), solver="levenberg_marquardt", rtol=1e-12)
    assert sol.z.item() == pytest.approx(math.exp(-3), rel=1e-10)


@pytest.mark.parametrize("size", [1e-16, 1.0, 1e16])
def test_size_of_the_residual_does_not_matter(size):
    """In float32, where the fourth powers of two of them are not numbers."""
    z0 = row(-1.2, 1.0, dtype=torch.float32)
    sol = root_find(lambda z: size * rosenbrock(z), z0, solver="levenberg_marquardt", atol=0.0, rtol=1e-5)
    torch.testing.assert_close(sol.z, torch.ones(1, 2), rtol=1e-4, atol=0)


def test_own_jacobian_and_complex_numbers():
    z0 = torch.tensor([[0.3 + 0.9j, -2.0], [1 - 1j, 5j]], dtype=torch.complex128)
    jac = lambda z: torch.diag_embed(3 * z**2)  # noqa: E731
    options = {"rtol": 1e-13, "atol": 1e-13}
    one = root_find(lambda z: z**3 - 1j, z0, solver="levenberg_marquardt", **options)
    own = root_find(lambda z: z**3 - 1j, z0, solver=LevenbergMarquardt(jac), **options)
    torch.testing.assert_close(one.z**3, torch.full_like(z0, 1j), rtol=0, atol=1e-11)
    torch.testing.assert_close(own.z, one.z, rtol=0, atol=1e-11)
    assert own.stats.n_evals.item() == one.stats.n_evals.item() - one.stats.n_steps.max().item()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"damping: got 0.0, expected a positive number"):
        LevenbergMarquardt(damping=0.0)
    with pytest.raises(TypeError, match=r"jac: got a float"):
        LevenbergMarquardt(jac=1.0)
    with pytest.raises(ValueError, match="line_search: got one with LevenbergMarquardt"):
        root_find(rosenbrock, row(1.0, 2.0), solver="levenberg_marquardt", line_search="armijo")


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
def test_compiled():
    def solve(z):
        return root_find(rosenbrock, z, solver="levenberg_marquardt", rtol=1e-10, atol=1e-10, throw=False)

    torch._dynamo.reset()
    z0 = torch.tensor([[-1.2, 1.0], [3.0, 0.5], [1.0, 1.0]], dtype=D)
    found, expected = torch.compile(solve, fullgraph=True)(z0), solve(z0)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-10)
    assert torch.equal(found.status_code, expected.status_code)
    assert torch.equal(found.stats.n_evals, expected.stats.n_evals)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)
