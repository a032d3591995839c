"""The collection against its definitions, published values, and what makes its roots roots."""

import math

import pytest
import torch
from torch.func import jacrev, jvp, vmap

from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM

EPS = torch.finfo(torch.float64).eps

every_system = pytest.mark.parametrize("system", MORE_GARBOW_HILLSTROM.values(), ids=MORE_GARBOW_HILLSTROM)


def jacobians(system, z):
    return vmap(jacrev(system.function))(z)


def size_of_terms(system, z):
    """What rounding of `z` and of constants of size 1 is multiplied by."""
    return (jacobians(system, z).abs() @ z.abs().unsqueeze(-1)).squeeze(-1) + 1


def draws(system, count=7):
    return system.starts(count, scale=0.4, seed=1)


@every_system
def test_roots_are_roots_to_the_last_digit(system):
    residual = system.function(system.roots).abs()
    assert (residual <= 2 * EPS * size_of_terms(system, system.roots)).all()


@every_system
def test_next_to_a_root_is_none(system):
    """So that the test above can fail, whichever unknown of whichever root is off in its twelfth digit."""
    if system.singular:
        pytest.skip("residuals next to it are of second order")
    for root in system.roots:
        beside = root + torch.diag(1e-11 * (1 + root.abs()))
        beyond = system.function(beside).abs() > 2 * EPS * size_of_terms(system, beside)
        assert beyond.any(-1).all()


@every_system
def test_roots_differ(system):
    apart = torch.cdist(system.roots, system.roots) + torch.eye(len(system.roots), dtype=torch.float64)
    assert apart.min() > 0.01


@every_system
def test_the_jacobian_is_singular_where_that_is_said(system):
    rank = torch.linalg.matrix_rank(jacobians(system, system.roots))
    assert (rank == (system.dim // 2 if system.singular else system.dim)).all()


TRAPPED = {name: system for name, system in MORE_GARBOW_HILLSTROM.items() if system.traps}


@pytest.mark.parametrize(
    ("name", "value"), [("Freudenstein-Roth", 48.98425), ("trigonometric", 2.795056e-5), ("Brown almost-linear", 1.0)]
)
def test_traps_are_stationary_and_of_the_published_value(name, value):
    system = MORE_GARBOW_HILLSTROM[name]
    (trap,) = torch.tensor(system.traps, dtype=torch.float64)
    g, jacobian = system.function(trap), jacrev(system.function)(trap)
    assert g.square().sum().item() == pytest.approx(value, rel=1e-6)
    assert (jacobian.T @ g).abs().max() <= 1e-13 * (jacobian.abs().T @ g.abs()).max()
    assert torch.linalg.svdvals(jacobian).min() < 1e-13 * torch.linalg.svdvals(jacobian).max()


def test_every_trap_is_tested():
    assert set(TRAPPED) == {"Freudenstein-Roth", "trigonometric", "Brown almost-linear"}


def test_minpack_s_fourteen_are_among_them():
    families = {name.rstrip(" 0123456789") for name in MORE_GARBOW_HILLSTROM}
    assert families >= {
        *("Rosenbrock", "Powell singular", "Powell badly scaled", "Wood", "helical valley", "Watson", "Chebyquad"),
        *("Brown almost-linear", "discrete boundary value", "discrete integral equation", "trigonometric"),
        *("variably dimensioned", "Broyden tridiagonal", "Broyden banded"),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Rosenbrock", 24.2),
        ("extended Rosenbrock", 121.0),
        ("Freudenstein-Roth", 400.5),
        ("Powell badly scaled", 1 + (math.exp(-1) - 0.0001) ** 2),
        ("helical valley", 2500.0),
        ("Powell singular", 215.0),
        ("extended Powell singular", 645.0),
        ("Brown almost-linear", 9 * 5.5**2 + (1 - 2**-10) ** 2),
        ("Broyden tridiagonal", 4 + 8 * 1 + 9),
        ("Broyden banded", 10 * 36),
    ],
)
def test_sums_of_squares_at_the_standard_start(name, value):
    system = MORE_GARBOW_HILLSTROM[name]
    assert system.function(system.z0).square().sum().item() == pytest.approx(value, rel=1e-14)


def wood(z):
    a, b, c, d = z
    squares = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return squares + 10 * (b + d - 2) ** 2 + (b - d) ** 2 / 10


def watson(z):
    total = z[0] ** 2 + (z[1] - z[0] ** 2 - 1) ** 2
    for i in range(1, 30):
        slope = sum(j * z[j] * (i / 29) ** (j - 1) for j in range(1, len(z)))
        total = total + (slope - sum(z[j] * (i / 29) ** j for j in range(len(z))) ** 2 - 1) ** 2
    return total


def variably_dimensioned(z):
    weighted = sum(j * (unknown - 1) for j, unknown in enumerate(z, 1))
    return ((z - 1) ** 2).sum() + weighted**2 + weighted**4


@pytest.mark.parametrize(
    ("name", "objective", "at_start", "at_root"),
    [
        ("Wood", wood, 19192.0, 0.0),
        ("Watson 6", watson, 30.0, 2.28767e-3),
        ("Watson 9", watson, 30.0, 1.39976e-6),
        ("variably dimensioned", variably_dimensioned, 2198551.1625, 0.0),
    ],
)
def test_gradients_are_those_of_the_published_sums_of_squares(name, objective, at_start, at_root):
    system = MORE_GARBOW_HILLSTROM[name]
    assert objective(system.z0).item() == pytest.approx(at_start, rel=1e-9)
    assert objective(system.roots[0]).item() == pytest.approx(at_root, rel=1e-5, abs=1e-20)
    z = draws(system)
    share = torch.tensor([0.5, 1, 0.5, 1] if name == "Wood" else [0.5] * system.dim, dtype=torch.float64)
    gradients = torch.stack([torch.func.grad(objective)(row) for row in z])
    torch.testing.assert_close(system.function(z), share * gradients)


def trigonometric(z, i):
    return len(z) - sum(map(math.cos, z)) + i * (1 - math.cos(z[i - 1])) - math.sin(z[i - 1])


def chebyquad(z, i):
    integral = (math.cos(math.pi * i) + 1) / 2 / (1 - i**2) if i > 1 else 0
    return sum(math.cos(i * math.acos(2 * unknown - 1)) for unknown in z) / len(z) - integral


def broyden_banded(z, i):
    band = [j for j in range(max(1, i - 5), min(len(z), i + 1) + 1) if j != i]
    return z[i - 1] * (2 + 5 * z[i - 1] ** 2) + 1 - sum(z[j - 1] * (1 + z[j - 1]) for j in band)


def discrete_integral_equation(z, i):
    h = 1 / (len(z) + 1)
    cubes = [(unknown + j * h + 1) ** 3 for j, unknown in enumerate(z, 1)]
    below = sum(j * h * cubes[j - 1] for j in range(1, i + 1))
    above = sum((1 - j * h) * cubes[j - 1] for j in range(i + 1, len(z) + 1))
    return z[i - 1] + h * ((1 - i * h) * below + i * h * above) / 2


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("trigonometric", trigonometric),
        ("Chebyquad 6", chebyquad),
        ("Chebyquad 9", chebyquad),
        ("Broyden banded", broyden_banded),
        ("discrete integral equation", discrete_integral_equation),
    ],
)
def test_components_by_their_definition(name, component):
    system = MORE_GARBOW_HILLSTROM[name]
    z = system.starts(5, scale=0.09, seed=2)  # within [0, 1], where Chebyquad's cosines are
    expected = [[component(row, i) for i in range(1, system.dim + 1)] for row in z.tolist()]
    torch.testing.assert_close(system.function(z), torch.tensor(expected, dtype=torch.float64), atol=1e-14, rtol=1e-13)


def test_second_differences_of_the_integral_equation_are_the_boundary_value_problem():
    integral, boundary = (MORE_GARBOW_HILLSTROM[f"discrete {name}"] for name in ("integral equation", "boundary value"))
    z = draws(boundary)
    ones = torch.ones(9, dtype=torch.float64)
    differences = 2 * torch.eye(10, dtype=torch.float64) - torch.diag(ones, 1) - torch.diag(ones, -1)
    torch.testing.assert_close(integral.function(z) @ differences, boundary.function(z))
    assert torch.equal(integral.z0, boundary.z0)
    assert boundary.z0[4].item() == pytest.approx(5 / 11 * (5 / 11 - 1))


@pytest.mark.parametrize(
    ("quadrant", "turns"), [((1.0, 0.0), 0.0), ((0.0, 1.0), 0.25), ((-1.0, 0.0), 0.5), ((0.0, -1.0), -0.25)]
)
def test_the_helical_valley_turns(quadrant, turns):
    z = torch.tensor([*quadrant, 3.0], dtype=torch.float64)
    g = MORE_GARBOW_HILLSTROM["helical valley"].function(z)
    torch.testing.assert_close(g, torch.tensor([10 * (3 - 10 * turns), 0, 3], dtype=torch.float64))


def test_the_helical_valley_is_smooth_around_its_start():
    function = MORE_GARBOW_HILLSTROM["helical valley"].function
    above, below = (function(torch.tensor([-1.0, side, 0.0], dtype=torch.float64)) for side in (1e-9, -1e-9))
    assert (above - below).abs().max() < 1e-6


@every_system
def test_a_batch_is_its_rows(system):
    z = draws(system)
    together = system.function(z)
    rows = torch.stack([system.function(row) for row in z])
    scale = size_of_terms(system, z)
    assert ((together - rows).abs() <= 4 * EPS * scale).all()
    assert ((vmap(system.function)(z) - rows).abs() <= 4 * EPS * scale).all()
    assert torch.equal(system.function(z.view(7, 1, -1)), together.view(7, 1, -1))


@every_system
def test_forward_derivatives_are_differences(system):
    z = draws(system)
    tangent = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    h = 1e-5
    differences = (system.function(z + h * tangent) - system.function(z - h * tangent)) / (2 * h)
    _, slope = jvp(system.function, (z,), (tangent,))
    torch.testing.assert_close(slope, differences, rtol=1e-6, atol=1e-6 * (1 + slope.abs().max().item()))


@every_system
def test_in_float32(system):
    z = draws(system).float()
    g = system.function(z)
    assert g.dtype == torch.float32
    exact = system.function(z.double())
    error = (g - exact).abs() / size_of_terms(system, z.double())
    assert error.max() <= 8 * torch.finfo(torch.float32).eps
    assert error.max() > 0


@every_system
def test_it_compiles_whole(system):
    torch.compiler.reset()
    z = draws(system)
    compiled = torch.compile(system.function, backend="eager", fullgraph=True)
    assert torch.equal(compiled(z), system.function(z))
