"""What one iterative method promises and others do not: finite termination, convergence factors, breakdowns."""

import math

import pytest
import torch

from dyn_numerics import GMRES, BiCGStab, ConjugateGradient, MatrixOperator

D, C = torch.float64, torch.complex128


@pytest.mark.parametrize("dtype", [D, C])
@pytest.mark.parametrize("n_values", [1, 3, 6])
@pytest.mark.parametrize("method", [GMRES(rtol=1e-10), ConjugateGradient(rtol=1e-10)])
def test_as_many_steps_as_there_are_eigenvalues(method, n_values, dtype, random, with_eigenvalues):
    values = torch.arange(1, n_values + 1, dtype=D).repeat(12 // n_values)
    a = with_eigenvalues(values, 3, dtype=dtype)
    found = method.solve(MatrixOperator(a), random(3, 12, dtype=dtype, seed=1))
    assert found.converged.all()
    assert found.n_steps.tolist() == [n_values] * 3


def test_gmres_takes_all_steps_for_a_cyclic_shift_and_its_restarts_break_down():
    """Every residual but the last is as long as the first (Saad & Schultz): nothing that restarts can solve this."""
    shift = MatrixOperator(torch.eye(6, dtype=D).roll(1, 0))
    b = torch.eye(6, dtype=D)[0]
    found = GMRES(rtol=1e-12).solve(shift, b)
    assert found.converged
    assert found.n_steps == 6
    assert torch.equal(found.x, torch.eye(6, dtype=D)[5])
    restarted = GMRES(restart=3, rtol=1e-12).solve(shift, b)
    assert restarted.breakdown
    assert restarted.residual == 1
    assert restarted.n_steps == 3


@pytest.mark.parametrize("dtype", [D, C, torch.float32])
def test_gmres_has_the_least_residual_of_each_krylov_space(dtype, random):
    a = torch.eye(10, dtype=dtype) + random(10, 10, dtype=dtype) / 4
    b = random(10, dtype=dtype, seed=1)
    space = [b]
    for steps in range(1, 8):
        columns = torch.stack([a @ v for v in space], -1)
        least = torch.linalg.vector_norm(b - columns @ torch.linalg.lstsq(columns, b.unsqueeze(-1)).solution[:, 0])
        found = GMRES(rtol=1e-6, max_steps=steps).solve(MatrixOperator(a), b)
        torch.testing.assert_close(found.residual, least, rtol=1e-9 if dtype != torch.float32 else 1e-3, atol=0)
        space.append(a @ space[-1] / 2)


def test_restarts_continue_from_what_there_is(random):
    a = 3 * torch.eye(12, dtype=D) + random(5, 12, 12) / 2
    b = random(5, 12, seed=1)
    found = GMRES(restart=4, rtol=1e-12).solve(MatrixOperator(a), b)
    assert found.converged.all()
    assert (found.n_steps > 8).all()
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=1e-11)
    # One cycle by hand, and another from there.
    first = GMRES(restart=4, rtol=1e-12, max_steps=4).solve(MatrixOperator(a), b)
    both = GMRES(restart=4, rtol=1e-12, max_steps=8).solve(MatrixOperator(a), b)
    second = GMRES(restart=4, rtol=1e-12, max_steps=4).solve(MatrixOperator(a), b, x0=first.x)
    torch.testing.assert_close(second.x, both.x, rtol=0, atol=1e-14)


def test_the_basis_stays_orthogonal_in_float32(with_eigenvalues, random):
    """A basis that lost its orthogonality, as it does when it is orthogonalised once, takes 82 steps instead of 49."""
    a, b = with_eigenvalues(torch.logspace(-3, 0, 60, dtype=D)), random(60, seed=1)
    expected = GMRES(restart=60, rtol=1e-4).solve(MatrixOperator(a), b)
    found = GMRES(restart=60, rtol=1e-4).solve(MatrixOperator(a.float()), b.float())
    assert found.converged
    assert found.n_steps == expected.n_steps


def test_conjugate_gradients_converge_at_their_rate(random):
    """For eigenvalues spread like Chebyshev points the bound of (sqrt(cond) - 1) / (sqrt(cond) + 1) is met."""
    size, cond = 2000, 100.0
    points = torch.cos(torch.pi * (torch.arange(size, dtype=D) + 0.5) / size)
    values = (1 + cond) / 2 + (cond - 1) / 2 * points
    b = torch.ones(size, dtype=D)
    a = torch.diag(values)
    lengths = [ConjugateGradient(rtol=1e-14, max_steps=n).solve(MatrixOperator(a), b).residual for n in (20, 60)]
    factor = (lengths[1] / lengths[0]).item() ** (1 / 40)
    expected = (math.sqrt(cond) - 1) / (math.sqrt(cond) + 1)
    assert abs(factor - expected) < 0.02


@pytest.mark.parametrize("values", [[-1.0, -2.0, -3.0], [1.0, -1.0, 2.0]])
def test_conjugate_gradients_refuse_negative_curvature(values):
    a = torch.stack([torch.diag(torch.tensor(values, dtype=D)), 2 * torch.eye(3, dtype=D)])
    found = ConjugateGradient(rtol=1e-10).solve(MatrixOperator(a), torch.tensor([1.0, 0.9, 0.1], dtype=D).expand(2, 3))
    assert found.converged.tolist() == [False, True]
    assert found.breakdown.tolist() == [True, False]
    assert found.x.isfinite().all()


def test_bicgstab_breaks_down_on_a_rotation_and_gmres_does_not():
    rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=D)
    b = torch.tensor([1.0, 2.0], dtype=D)
    found = BiCGStab(rtol=1e-10).solve(MatrixOperator(rotation), b)
    assert found.breakdown
    assert torch.equal(found.x, torch.zeros(2, dtype=D))
    torch.testing.assert_close(
        GMRES(rtol=1e-10).solve(MatrixOperator(rotation), b).x, torch.tensor([2.0, -1.0], dtype=D)
    )


def test_bicgstab_takes_two_products_a_step(random, counted_operator):
    a = 3 * torch.eye(12, dtype=D) + random(12, 12) / 3
    operator = counted_operator(a)
    found = BiCGStab(rtol=1e-10).solve(operator, random(12, seed=1))
    assert found.n_products == operator.calls == 2 * found.n_steps + 1


def test_bicgstab_ends_a_cycle_that_cannot_go_on():
    """Its first step leaves omega = 0 (a residual that is orthogonal to its product), and so does the next cycle's."""
    a = torch.tensor([[-2.0, -2.0], [-1.0, 0.0]], dtype=D)
    found = BiCGStab(rtol=1e-10).solve(MatrixOperator(a), torch.tensor([1.0, 0.0], dtype=D))
    assert found.breakdown
    assert found.residual == 0.5
    assert found.n_steps == 2
    assert found.n_products == 2 * 3


def test_gmres_starts_anew_when_its_space_is_complete():
    """From far away one cycle leaves what rounding leaves of 1e9. The space has three dimensions, and more is noise."""
    values = torch.tensor([1.0, 2.0, 4.0], dtype=D).repeat(2)
    b = torch.arange(1, 7, dtype=D)
    found = GMRES(rtol=1e-10).solve(MatrixOperator(torch.diag(values)), b, x0=torch.full((6,), 1e9, dtype=D))
    assert found.converged
    assert found.n_steps == 3 + 3
    torch.testing.assert_close(found.x, b / values, rtol=1e-9, atol=0)


def test_gmres_keeps_the_least_residual_of_a_singular_system():
    a = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=D))
    found = GMRES(rtol=1e-10).solve(MatrixOperator(a), torch.ones(3, dtype=D))
    assert found.breakdown
    torch.testing.assert_close(found.residual, torch.ones((), dtype=D), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.x[:2], torch.tensor([1.0, 0.5], dtype=D), rtol=0, atol=1e-12)


def test_conjugate_gradients_refuse_an_indefinite_preconditioner():
    signs = torch.tensor([1.0, -1.0], dtype=D)
    method = ConjugateGradient(rtol=1e-10, preconditioner=lambda v: signs * v)
    found = method.solve(MatrixOperator(torch.eye(2, dtype=D)), torch.tensor([1.0, 0.5], dtype=D))
    assert found.breakdown
    assert found.n_steps == 1
    torch.testing.assert_close(found.residual, torch.tensor(0.8, dtype=D).sqrt(), rtol=1e-12, atol=0)


def test_bicgstab_starts_anew_where_its_recurrence_breaks_down():
    """The residual of the first step is orthogonal to the first of all; three more steps solve three unknowns."""
    a = torch.tensor([[-3.0, 2.0, 0.0], [-3.0, 3.0, 3.0], [1.0, 2.0, -1.0]], dtype=D)
    found = BiCGStab(rtol=1e-10).solve(MatrixOperator(a), torch.tensor([0.0, 2.0, 0.0], dtype=D))
    assert found.converged
    assert found.n_steps == 1 + 3
    torch.testing.assert_close(a @ found.x, torch.tensor([0.0, 2.0, 0.0], dtype=D), rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [GMRES(rtol=1e-10), BiCGStab(rtol=1e-10)], ids=repr)
def test_lanes_of_operators_with_one_right_hand_side(solver):
    matrices = torch.randn(4, 5, 5, dtype=torch.float64) + 5 * torch.eye(5, dtype=torch.float64)
    b = torch.randn(5, dtype=torch.float64)
    found = torch.func.vmap(lambda matrix: solver.solve(MatrixOperator(matrix), b).x)(matrices)
    torch.testing.assert_close(found, torch.linalg.solve(matrices, b.expand(4, 5)), rtol=1e-8, atol=0)
