"""How fast the methods converge: measured slopes, rates and laws."""

import math
from itertools import pairwise

import pytest
import torch

from dyn_numerics import Anderson, Broyden, Chord, FixedPointIteration, Newton, fixed_point, root_find

D = torch.float64
ROOT = torch.tensor([1.0, 1.0], dtype=D)


def system(z):
    """A system with the root (1, 1) and a full, non-symmetric Jacobian there."""
    x, y = z.unbind(-1)
    return torch.stack([x**2 + y - 2, x * y**3 + 2 * x - 3], dim=-1)


def jacobian(z):
    x, y = z.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([torch.stack([2 * x, one], -1), torch.stack([y**3 + 2, 3 * x * y**2], -1)], -2)


def slope(distances, errors):
    """Slope of errors over distances, both in logarithms."""
    x, y = torch.tensor(distances, dtype=D).log(), torch.tensor(errors, dtype=D).log()
    return (((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()).item()


def errors_after(steps, solver, distances):
    """Errors after some steps from starts at the given distances from the root."""
    direction = torch.tensor([0.6, 0.8], dtype=D)
    z0 = ROOT + torch.tensor(distances, dtype=D).unsqueeze(-1) * direction
    z = root_find(system, z0, solver=solver, max_steps=steps, rtol=1e-15, atol=1e-300, throw=False).z
    return (z - ROOT).norm(dim=-1).tolist()


@pytest.mark.parametrize(
    ("solver", "steps", "order"),
    [
        (Newton(), 1, 2),
        (Newton(jac=jacobian), 1, 2),
        (Newton(), 2, 4),
        (Chord(), 2, 3),  # Shamanskii: one order more for each step with the old Jacobian
        (Chord(every=2), 2, 3),
        (Chord(every=2), 3, 6),
        (Broyden(jacobian="exact"), 1, 2),
    ],
    ids=lambda value: repr(value),
)
def test_order(solver, steps, order):
    distances = [10 ** (-1 - 0.25 * i) for i in range(5)] if order > 3 else [10 ** (-1 - 0.5 * i) for i in range(6)]
    errors = errors_after(steps, solver, distances)
    assert min(errors) > 1e-13
    assert slope(distances, errors) == pytest.approx(order, abs=0.1 * order)


def test_newton_with_a_wrong_jacobian_is_of_first_order():
    solver = Newton(jac=lambda z: 1.1 * jacobian(z))
    distances = [10 ** (-3 - 0.5 * i) for i in range(6)]
    assert slope(distances, errors_after(1, solver, distances)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("update", ["good", "bad"])
def test_broyden_in_one_dimension_is_the_secant_method(update):
    """Errors of the secant method follow e_(k+1) = f'' / (2 f') e_k e_(k-1): order 1.618."""
    z0 = torch.full((1, 1), 1.3, dtype=D)
    errors = []
    for steps in range(1, 6):
        solver = Broyden(update=update, jacobian=3.0)
        z = root_find(lambda z: z**2 - 2, z0, solver=solver, max_steps=steps, rtol=1e-15, atol=1e-300, throw=False).z
        errors.append(abs(z.item() - math.sqrt(2)))
    for k in (2, 3):
        law = errors[k] / (errors[k - 1] * errors[k - 2])
        assert law == pytest.approx(1 / (2 * math.sqrt(2)), rel=0.05)


@pytest.mark.parametrize("update", ["good", "bad"])
def test_broyden_is_superlinear(update):
    """The factor by which the error falls goes to zero; with the Jacobian of the start alone it stays."""

    def factors(solver):
        z0 = ROOT + torch.tensor([[0.1, -0.05]], dtype=D)
        errors = [(z0 - ROOT).norm().item()]
        for steps in range(1, 7):
            z = root_find(system, z0, solver=solver, max_steps=steps, rtol=1e-15, atol=1e-300, throw=False).z
            errors.append((z - ROOT).norm().item())
        return [after / before for before, after in pairwise(errors)]

    learned, kept = factors(Broyden(update=update, jacobian="exact")), factors(Chord())
    assert learned[-1] < 0.01
    assert learned[-1] < 0.1 * min(learned[:2])
    assert kept[-1] > 0.1


@pytest.mark.parametrize("update", ["good", "bad"])
def test_broyden_solves_linear_systems_in_twice_their_dimension(update):
    """D. M. Gay: Some convergence properties of Broyden's method, SIAM Journal on Numerical Analysis 16 (1979)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(4, dtype=D) + 0.4 * torch.randn(4, 4, dtype=D, generator=generator)
    target = torch.randn(3, 4, dtype=D, generator=generator)
    options = {"solver": Broyden(update=update, jacobian=1.0), "rtol": 1e-15, "atol": 1e-300, "throw": False}
    g = lambda z: z @ matrix.T - target  # noqa: E731
    before = root_find(g, torch.zeros(3, 4, dtype=D), max_steps=6, **options)
    after = root_find(g, torch.zeros(3, 4, dtype=D), max_steps=8, **options)
    assert after.residual.max() < 1e-11
    assert before.residual.min() > 1e-6


def test_anderson_solves_linear_fixed_points_in_their_dimension():
    """With enough memory it is GMRES, one step behind."""
    generator = torch.Generator().manual_seed(0)
    matrix = 0.6 * torch.randn(4, 4, dtype=D, generator=generator)
    shift = torch.randn(3, 4, dtype=D, generator=generator)
    h = lambda z: z @ matrix.T + shift  # noqa: E731
    options = {"solver": Anderson(m=5), "rtol": 1e-15, "atol": 1e-300, "throw": False}
    before = fixed_point(h, torch.zeros(3, 4, dtype=D), max_steps=4, **options)
    after = fixed_point(h, torch.zeros(3, 4, dtype=D), max_steps=5, **options)
    assert after.residual.max() < 1e-8  # the ridge of 10 eps is felt
    assert before.residual.min() > 1e-3


def test_anderson_residuals_are_those_of_gmres():
    """Walker and Ni 2011: the mixed residual of step k is the least over the Krylov space, that of GMRES."""
    generator = torch.Generator().manual_seed(1)
    matrix = 0.2 * torch.randn(6, 6, dtype=D, generator=generator)
    shift = torch.randn(6, dtype=D, generator=generator)
    system = torch.eye(6, dtype=D) - matrix
    for k in (1, 2, 3):
        space = torch.stack([torch.linalg.matrix_power(system, i) @ shift for i in range(k)], dim=1)
        y = torch.linalg.lstsq(system @ space, shift.unsqueeze(1)).solution
        exact = space @ y  # GMRES after k steps from 0
        z = fixed_point(
            lambda z: z @ matrix.T + shift,
            torch.zeros(1, 6, dtype=D),
            solver=Anderson(m=6),
            max_steps=k + 1,
            rtol=1e-15,
            atol=1e-300,
            throw=False,
        ).z
        mixed = matrix @ exact.squeeze(1) + shift  # a step of the map from there
        torch.testing.assert_close(z[0], mixed, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_fixed_point_iteration_converges_at_the_rate_of_the_map(damping):
    """The map has the derivative -sin(z*) at its fixed point; damped, 1 - damping (1 + sin(z*))."""
    exact = 0.739085133215160641655312
    errors = []
    for steps in (4, 12):
        z = fixed_point(
            torch.cos,
            torch.ones(1, 1, dtype=D),
            solver=FixedPointIteration(damping),
            max_steps=steps,
            rtol=1e-15,
            atol=1e-300,
            throw=False,
        ).z
        errors.append(abs(z.item() - exact))
    rate = abs(1 - damping * (1 + math.sin(exact)))
    assert (errors[1] / errors[0]) ** 0.125 == pytest.approx(rate, rel=0.02)


def test_damping_of_anderson_is_that_of_its_first_step():
    z = fixed_point(torch.cos, torch.ones(1, 1, dtype=D), solver=Anderson(damping=0.3), max_steps=1, throw=False).z
    assert z.item() == pytest.approx(1 + 0.3 * (math.cos(1) - 1), rel=1e-15)
