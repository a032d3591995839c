"""Newton's method with Krylov solvers: forcing terms, large systems, linear solves that fail."""

import math

import pytest
import torch
from torch.nn.functional import pad

from dyn_numerics import NewtonKrylov, RootStatus, root_find
from dyn_numerics.linear.dense_lu import DenseLU
from dyn_numerics.linear.gmres import GMRES
from dyn_numerics.loop import is_supported

D = torch.float64


def second_differences(z):
    padded = pad(z, (1, 1))
    return 2 * z - padded[..., 2:] - padded[..., :-2]


def boundary_value(z):
    """Bratu's problem `z'' + exp(z) = 0`, zero at both ends."""
    return second_differences(z) - z.exp() / (z.shape[-1] + 1) ** 2


def second_differences_inverted(size, dtype=D):
    i = torch.arange(1, size + 1, dtype=D)
    inverse = torch.minimum(i[:, None], i) * (size + 1 - torch.maximum(i[:, None], i)) / (size + 1)
    return inverse.to(dtype)


def smooth(z):
    """Broyden's tridiagonal function, whose Jacobian is regular at its root."""
    padded = pad(z, (1, 1))
    return (3 - 2 * z) * z - padded[..., :-2] - 2 * padded[..., 2:] + 1


class Told(DenseLU):
    """An exact linear solver that writes down what it was asked for."""

    def __init__(self):
        super().__init__()
        self.rtols = []

    def solve(self, operator, b, x0=None, *, rtol=None):
        self.rtols.append(rtol.tolist())
        return super().solve(operator, b, x0, rtol=rtol)


def residuals(count, **options):
    z0 = -torch.ones(1, 30, dtype=D)
    sols = [root_find(smooth, z0, max_steps=k, rtol=1e-15, atol=0.0, throw=False, **options) for k in range(1, count)]
    return torch.stack([sol.residual[0] for sol in sols])


def test_forcing_of_eisenstat_and_walker_is_superlinear():
    logs = residuals(7, solver="newton_krylov").log()
    orders = [((b - a) / (a - last)).item() for last, a, b in zip(logs, logs[1:], logs[2:], strict=False) if b > -32]
    assert len(orders) >= 2
    assert min(orders[-2:]) > 1.5


@pytest.mark.parametrize("forcing", [0.3, 0.03])
def test_fixed_forcing_is_linear_at_its_rate(forcing):
    ratios = (residuals(9, solver=NewtonKrylov(forcing=forcing)).diff().abs()).log().diff().exp()
    assert 0.02 * forcing < ratios[2:].max().item() < 1.3 * forcing


def test_forcing_terms():
    """`0.9 (|f| / |f_last|)^2`, but at least 0.9 of the last squared if that is above 0.1, and at most 0.9."""
    told = Told()
    scale = torch.tensor([[1.0], [100.0]], dtype=D)
    norms = []

    def g(z):
        norms.append([norm.item() for norm in smooth(z * scale).square().mean(-1).sqrt()])
        return smooth(z * scale)

    root_find(g, -torch.ones(2, 6, dtype=D) / scale, solver=NewtonKrylov(told), rtol=1e-13, throw=False)
    sizes = norms[::2]  # between them the Jacobian is taken
    assert told.rtols[0] == [0.5, 0.5]
    for last, new, before, now in zip(told.rtols, told.rtols[1:], sizes, sizes[1:], strict=False):
        for i in (0, 1):
            expected = 0.9 * (now[i] / before[i]) ** 2
            if 0.9 * last[i] ** 2 > 0.1:
                expected = max(expected, 0.9 * last[i] ** 2)
            assert new[i] == pytest.approx(min(max(expected, 2.2e-15), 0.9), rel=1e-4)
    assert told.rtols[1][0] == pytest.approx(0.9 * 0.25)  # the safeguard
    assert told.rtols[-1][0] < 1e-3


def test_forcing_terms_stay_below_one():
    told = Told()
    root_find(torch.atan, torch.full((1, 1), 1.8, dtype=D), solver=NewtonKrylov(told), max_steps=3, throw=False)
    assert told.rtols[1:] == [[0.9], [0.9]]


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-2), (D, 1e-10)])
def test_large_system_with_a_preconditioner(dtype, rtol):
    """Its maximum is `2 log cosh(theta / 4)` more than nothing, where `theta = sqrt(2) cosh(theta / 4)`."""
    size = 999
    inverse = second_differences_inverted(size, dtype)
    solver = NewtonKrylov(GMRES(preconditioner=lambda v: v @ inverse))
    sol = root_find(boundary_value, torch.zeros(2, size, dtype=dtype), solver=solver, rtol=rtol, atol=0.0)
    theta = 1.5
    for _ in range(100):
        theta = 2**0.5 * math.cosh(theta / 4)
    exact = 2 * math.log(math.cosh(theta / 4))
    assert sol.z.max().item() == pytest.approx(exact, abs=1e-6 if dtype is D else 3e-3)
    assert sol.stats.n_evals.item() < 25


def test_preconditioner_spares_products():
    inverse = second_differences_inverted(60)
    options = {"z0": torch.zeros(1, 60, dtype=D), "rtol": 1e-9, "atol": 0.0}
    plain = root_find(boundary_value, solver=NewtonKrylov(), **options)
    helped = root_find(boundary_value, solver=NewtonKrylov(GMRES(preconditioner=lambda v: v @ inverse)), **options)
    newton = root_find(boundary_value, solver="newton", **options)
    torch.testing.assert_close(plain.z, newton.z, rtol=0, atol=1e-7)
    torch.testing.assert_close(helped.z, newton.z, rtol=0, atol=1e-7)
    assert helped.stats.n_evals * 10 < plain.stats.n_evals


def test_linear_solve_that_ends_too_early_is_followed():
    solver = NewtonKrylov(GMRES(restart=3, max_steps=3), forcing=1e-8)
    sol = root_find(smooth, -torch.ones(1, 30, dtype=D), solver=solver, rtol=1e-10)
    exact = root_find(smooth, -torch.ones(1, 30, dtype=D), solver="newton", rtol=1e-10)
    torch.testing.assert_close(sol.z, exact.z, rtol=0, atol=1e-8)
    assert sol.stats.n_steps.item() > exact.stats.n_steps.item()


@pytest.mark.parametrize("linear_solver", [GMRES(), DenseLU()])
def test_breakdown_is_a_singular_jacobian(linear_solver):
    z0 = torch.tensor([[0.0, 0.0], [1.5, 2.0]], dtype=D)
    sol = root_find(lambda z: z**2 - 1, z0, solver=NewtonKrylov(linear_solver), rtol=1e-12, throw=False)
    assert sol.status == [RootStatus.SINGULAR, RootStatus.CONVERGED]
    assert torch.equal(sol.z[0], z0[0])
    torch.testing.assert_close(sol.z[1], torch.ones(2, dtype=D), rtol=1e-9, atol=0)


def test_singular_jacobian_with_a_direction_is_followed():
    """The second equation says nothing at first, and the first is solved meanwhile."""
    g = lambda z: torch.stack([z[:, 0] - 2, z[:, 0] * (z[:, 1] - 1)], -1)  # noqa: E731
    z0 = torch.tensor([[0.0, 3.0]], dtype=D)
    assert root_find(g, z0, solver="newton", throw=False).status == [RootStatus.SINGULAR]
    sol = root_find(g, z0, solver="newton_krylov", rtol=1e-12)
    torch.testing.assert_close(sol.z, torch.tensor([[2.0, 1.0]], dtype=D), rtol=1e-9, atol=0)


def test_preconditioner_may_have_parameters():
    """Roots do not depend on them: nobody is refused for a gradient that is zero."""
    preconditioner = torch.nn.Linear(4, 4, dtype=D)
    with torch.no_grad():
        preconditioner.weight.copy_(torch.eye(4) + 0.01)
        preconditioner.bias.zero_()
    z0 = -torch.ones(1, 4, dtype=D)
    sol = root_find(smooth, z0, solver=NewtonKrylov(GMRES(preconditioner=preconditioner)), rtol=1e-12)
    torch.testing.assert_close(sol.z, root_find(smooth, z0, solver="newton", rtol=1e-12).z, rtol=1e-8, atol=0)
    with pytest.raises(ValueError, match="through whose steps no gradient flows"):
        root_find(smooth, z0.clone().requires_grad_(), solver="newton_krylov")


def test_samples_that_have_ended_take_no_products():
    """The first is solved at the start, but for a residual that its linear system takes many products to lower."""
    z0 = torch.stack([torch.full((30,), 1e-12, dtype=D), -torch.ones(30, dtype=D)])
    z0[0, ::3] *= 2
    solver = NewtonKrylov(forcing=1e-3)
    both = root_find(lambda z: torch.cat([second_differences(z[:1]), smooth(z[1:])]), z0, solver=solver)
    alone = root_find(smooth, z0[1:], solver=solver)
    assert both.stats.n_steps.tolist() == [0, alone.stats.n_steps.item()]
    assert both.residual[0].item() > 0
    assert both.stats.n_evals == alone.stats.n_evals


def test_line_search_from_afar():
    z0 = torch.full((1, 1), 3.0, dtype=D)
    assert root_find(torch.atan, z0, solver="newton_krylov", throw=False).status == [RootStatus.SINGULAR]
    sol = root_find(torch.atan, z0, solver="newton_krylov", line_search="armijo")
    assert abs(sol.z.item()) < 1e-7


def test_complex_numbers_and_pytrees():
    z0 = {"a": torch.tensor([[1 + 0.5j]], dtype=torch.complex128), "b": torch.ones(1, 2, 2, dtype=torch.complex128)}
    sol = root_find(
        lambda z: {"a": z["a"] ** 3 - 1j, "b": z["b"] * z["b"] - 2j}, z0, solver="newton_krylov", rtol=1e-12
    )
    torch.testing.assert_close(sol.z["a"] ** 3, torch.full_like(z0["a"], 1j), rtol=0, atol=1e-7)
    torch.testing.assert_close(sol.z["b"], torch.full_like(z0["b"], 1 + 1j), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"forcing": 1.0}, ValueError, "forcing: got 1.0, expected 'eisenstat_walker' or a number between 0 and 1"),
        ({"forcing": "kelley"}, ValueError, "forcing: got 'kelley', expected"),
        ({"forcing": None}, TypeError, "forcing: got a NoneType, expected"),
        ({"linear_solver": "gmres"}, TypeError, r"linear_solver: got a str, expected a LinearSolver; try GMRES\(\)"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        NewtonKrylov(**options)


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
def test_compiled():
    def solve(z):
        return root_find(smooth, z, solver="newton_krylov", line_search="armijo", rtol=1e-10, atol=1e-10, throw=False)

    torch._dynamo.reset()
    z0 = torch.stack([-torch.ones(4, dtype=D), torch.zeros(4, dtype=D)])
    found, expected = torch.compile(solve, fullgraph=True)(z0), solve(z0)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-10)
    assert torch.equal(found.status_code, expected.status_code)
    assert torch.equal(found.stats.n_evals, expected.stats.n_evals)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)
