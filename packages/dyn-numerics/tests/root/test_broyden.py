"""What Broyden's method remembers, starts with and forgets."""

import pytest
import torch

from dyn_numerics import Broyden, Newton, RootStatus, root_find

D, C = torch.float64, torch.complex128


def random(*shape, dtype=C, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def linear(dtype, size=3, batch=4, departure=0.4):
    matrix = torch.eye(size, dtype=dtype) + departure * random(size, size, dtype=dtype)
    target = random(batch, size, dtype=dtype, seed=1)
    return (lambda z: z @ matrix.mT - target), torch.linalg.solve(matrix, target.mT).mT, matrix


def after(steps, g, z0, solver):
    return root_find(g, z0, solver=solver, max_steps=steps, rtol=1e-15, atol=1e-300, throw=False).z


@pytest.mark.parametrize("dtype", [D, C])
@pytest.mark.parametrize("update", ["good", "bad"])
@pytest.mark.parametrize("jacobian", [1.0, "scaled"])
def test_linear_systems_take_twice_their_dimension(dtype, update, jacobian):
    """Complex ones too, where every product has to conjugate what it should."""
    g, exact, _ = linear(dtype)
    solver, z0 = Broyden(update=update, jacobian=jacobian), torch.zeros_like(exact)
    assert (after(6, g, z0, solver) - exact).abs().max() < 1e-10
    assert (after(4, g, z0, solver) - exact).abs().min() > 1e-6


@pytest.mark.parametrize("dtype", [D, C])
def test_the_scaled_start_fits_the_residuals_own_direction(dtype):
    """The first step is the multiple of the residual after which the linearised residual is least."""
    g, exact, matrix = linear(dtype)
    z0 = torch.zeros_like(exact)
    residual = g(z0)
    along = residual @ matrix.mT
    best = (along.conj() * residual).sum(-1, keepdim=True) / (along.abs() ** 2).sum(-1, keepdim=True)
    moved = root_find(g, z0, solver=Broyden(jacobian="scaled"), max_steps=1, throw=False).z
    torch.testing.assert_close(moved, z0 - best * residual, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("update", ["good", "bad"])
def test_a_jacobian_that_has_just_been_made_is_not_corrected(update):
    """With a memory of one update there is a new Jacobian in every step: Newton's method."""
    z0 = random(3, 2, dtype=D)

    def g(z):
        return torch.stack([z[:, 0] ** 2 + z[:, 1] - 1, z[:, 0] - z[:, 1] ** 3], dim=-1)

    for steps in (1, 2, 3):
        newton = after(steps, g, z0, Newton())
        torch.testing.assert_close(
            after(steps, g, z0, Broyden(memory=2, update=update, jacobian="exact")), newton, rtol=1e-10, atol=1e-10
        )


def test_a_full_memory_is_forgotten_but_for_the_last_step():
    """With a number for the Jacobian: after `memory - 1` updates it is the method that starts there, one step wiser."""
    g, exact, _ = linear(D, size=8, departure=0.1)  # every step is better than the one before
    z0 = torch.zeros_like(exact)
    short, long = Broyden(memory=4, jacobian=1.0), Broyden(memory=64, jacobian=1.0)
    for steps in (1, 2, 3):
        assert torch.equal(after(steps, g, z0, short), after(steps, g, z0, long))
    before, there = after(2, g, z0, long), after(3, g, z0, long)
    step, change, value = there - before, g(there) - g(before), g(there)
    # One good update of the identity, written out.
    left = (step - change) / (step * change).sum(-1, keepdim=True)
    expected = there - (value + left * (step * value).sum(-1, keepdim=True))
    torch.testing.assert_close(after(4, g, z0, short), expected, rtol=1e-12, atol=1e-12)


def test_a_singular_jacobian_at_the_start():
    def g(z):
        total = z.sum(-1)
        return torch.stack([total - 1, total**2 + z[:, 0] * (z[:, 0] - 1)], dim=-1)

    z0 = torch.tensor(
        [[0.5, 0.5], [0.9, 0.4]], dtype=D
    )  # at the first, both rows of the Jacobian are multiples of (1, 1)
    sol = root_find(g, z0, solver=Broyden(jacobian="exact"), throw=False)
    assert sol.status[0] is RootStatus.SINGULAR
    assert torch.equal(sol.z[0], z0[0])
    assert sol.status[1] is not RootStatus.SINGULAR
