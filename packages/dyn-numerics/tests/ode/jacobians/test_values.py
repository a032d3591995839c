"""Jacobians, rates and solutions of every kind against ones by hand; one call of the field each."""

import pytest
import torch

from dyn_numerics import BandedJacobian, BlockDiagonalJacobian, DenseJacobian, KrylovJacobian

D = torch.float64
LEADS = [(), (4,)]


def exact(a, b):
    return torch.linalg.solve(a, b.unsqueeze(-1)).squeeze(-1)


def band_of(matrix, lower, upper):
    """The band in SciPy's layout, `[*lead, lower + upper + 1, N]`, with NaN where nothing belongs."""
    size = matrix.shape[-1]
    band = torch.full((*matrix.shape[:-2], lower + upper + 1, size), torch.nan, dtype=matrix.dtype)
    for i in range(size):
        for j in range(max(0, i - lower), min(size, i + upper + 1)):
            band[..., upper + i - j, j] = matrix[..., i, j]
    return band


@pytest.mark.parametrize("kind", [DenseJacobian, lambda **options: BandedJacobian(1, 2, **options)])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 35])
def test_against_a_jacobian_by_hand(kind, lead, size, neighbours, random):
    jacobian = kind()
    t, x, b = random(*lead, seed=1), random(*lead, size), random(*lead, size, seed=2)
    for with_rate in (False, True):
        neighbours.calls = 0
        near = jacobian.linearise(neighbours, t, x, with_rate)
        assert neighbours.calls == 1
        torch.testing.assert_close(near.slope, neighbours(t, x), rtol=0, atol=1e-14)
        if with_rate:
            torch.testing.assert_close(near.rate, neighbours.rate(t, x), rtol=0, atol=1e-14)
        else:
            assert near.rate is None
    hand = neighbours.jacobian(t, x)
    units = torch.eye(size, dtype=D)
    columns = torch.stack([jacobian.product(near.jacobian, unit.expand_as(x)) for unit in units], -1)
    torch.testing.assert_close(columns, hand, rtol=0, atol=1e-14)
    for shift in (0.07, torch.full(lead, 0.07, dtype=D)):
        factors = jacobian.factorise(near.jacobian, shift)
        assert factors.singular.shape == lead
        assert not factors.singular.any()
        solved = jacobian.solve(neighbours, factors, b)
        torch.testing.assert_close(solved.x, exact(units - 0.07 * hand, b), rtol=1e-11, atol=1e-11)
        assert solved.n_evals == 0


@pytest.mark.parametrize(("lower", "upper"), [(0, 0), (1, 1), (0, 3), (4, 1), (9, 12), (30, 30)])
def test_band_systems_against_full_ones(lower, upper, random):
    size = 23
    matrix = random(3, size, size).tril(upper).triu(-lower)
    jacobian = BandedJacobian(lower, upper)
    near = jacobian.linearise(
        lambda t, x: (matrix @ x.unsqueeze(-1)).squeeze(-1), torch.zeros(3, dtype=D), random(3, size)
    )
    factors = jacobian.factorise(near.jacobian, torch.tensor([0.1, -0.05, 0.02], dtype=D))
    b = random(3, size, seed=1)
    found = jacobian.solve(None, factors, b).x
    for i, shift in enumerate((0.1, -0.05, 0.02)):
        expected = exact(torch.eye(size, dtype=D) - shift * matrix[i], b[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize(("parts", "size"), [(1, 3), (5, 1), (6, 4)])
def test_parts_that_do_not_see_each_other(lead, parts, size, random):
    mix = random(parts, size, size)
    calls = []

    def f(t, x):
        calls.append(t)
        x = x.reshape(*x.shape[:-1], parts, size)
        return ((mix * x.unsqueeze(-2)).sum(-1) - x**3 * t[..., None, None]).flatten(-2)

    t, x, b = random(*lead, seed=1), random(*lead, parts * size), random(*lead, parts * size, seed=2)
    jacobian = BlockDiagonalJacobian(size)
    near = jacobian.linearise(f, t, x, with_rate=True)
    assert len(calls) == 1
    full = DenseJacobian().linearise(f, t, x, with_rate=True)
    torch.testing.assert_close(near.rate, full.rate, rtol=0, atol=1e-14)
    assert near.jacobian.shape == (*lead, parts, size, size)
    shift = torch.linspace(0.02, 0.1, max(1, *lead, 1), dtype=D).reshape(lead) if lead else 0.1
    factors = jacobian.factorise(near.jacobian, shift)
    expected = DenseJacobian().solve(f, DenseJacobian().factorise(full.jacobian, shift), b).x
    torch.testing.assert_close(jacobian.solve(f, factors, b).x, expected, rtol=1e-11, atol=1e-11)
    assert factors.singular.shape == lead


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
@pytest.mark.parametrize("lead", LEADS)
def test_dtypes(dtype, lead, neighbours, random, context):
    t = random(*lead, seed=1).to(torch.zeros((), dtype=dtype).real.dtype)
    x, b = random(*lead, 12, dtype=dtype), random(*lead, 12, dtype=dtype, seed=2)
    matrix = torch.eye(12, dtype=dtype) - 0.05 * neighbours.jacobian(t, x)
    tolerance = 1e3 * torch.finfo(dtype).eps
    kinds = [DenseJacobian(), BandedJacobian(1, 2), BlockDiagonalJacobian(12), KrylovJacobian(accuracy=1e-3)]
    for jacobian in kinds:
        jacobian = jacobian.on(context(x, bool(lead), rtol=tolerance))
        near = jacobian.linearise(neighbours, t, x, with_rate=True)
        found = jacobian.solve(neighbours, jacobian.factorise(near.jacobian, 0.05), b).x
        assert found.dtype == dtype
        assert near.rate.dtype == dtype
        torch.testing.assert_close(found, exact(matrix, b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("jacobian", [DenseJacobian(), BandedJacobian(1, 2), BlockDiagonalJacobian(12)], ids=repr)
def test_what_is_singular_or_not_finite_stays_alone(jacobian, neighbours, random):
    """W = 0 in sample 1, NaN in sample 3, a row of zeros in sample 4."""
    x, b, t = random(6, 12), random(6, 12, seed=1), torch.ones(6, dtype=D)
    x[3, 5] = torch.nan

    def f(t, x):
        grown = neighbours(t, x)
        sample = torch.arange(6).unsqueeze(-1)
        one = torch.where(torch.arange(12) == 7, 10 * x, 0.1 * x)
        return torch.where(sample == 1, 10 * x, torch.where(sample == 4, one, grown))

    near = jacobian.linearise(f, t, x)
    factors = jacobian.factorise(near.jacobian, torch.full((6,), 0.1, dtype=D))
    assert factors.singular.tolist() == [False, True, False, True, True, False]
    found = jacobian.solve(f, factors, b).x
    assert not torch.isfinite(found[[1, 3, 4]]).all(-1).any()
    good = [0, 2, 5]
    alone = jacobian.linearise(neighbours, t[good], x[good])
    alone = jacobian.solve(f, jacobian.factorise(alone.jacobian, t[good] * 0.1), b[good]).x
    torch.testing.assert_close(found[good], alone, rtol=0, atol=1e-14)
    matrix = torch.eye(12, dtype=D) - 0.1 * neighbours.jacobian(t, x)[good]
    torch.testing.assert_close(found[good], exact(matrix, b[good]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("jacobian", [DenseJacobian(), BlockDiagonalJacobian(2), BandedJacobian(1, 1)], ids=repr)
def test_samples_in_another_order_have_the_same_bits(jacobian, random):
    x, b, t = random(7, 6), random(7, 6, seed=1), random(7, seed=2)
    shift = random(7, seed=3).abs() * 0.1
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])

    def f(t, x):
        pairs = x.unflatten(-1, (3, 2))
        return (pairs.flip(-1) * pairs * t[..., None, None]).flatten(-2)

    def solve(x, b, t, shift):
        near = jacobian.linearise(f, t, x, with_rate=True)
        return jacobian.solve(f, jacobian.factorise(near.jacobian, shift), b).x

    assert torch.equal(solve(x, b, t, shift)[order], solve(x[order], b[order], t[order], shift[order]))


def test_a_band_without_exchanges_among_blocks_is_not_trusted_blindly(random):
    """The diagonal block of the first eight rows is singular, and the matrix is not: it counts as singular."""
    size = 16
    matrix = torch.eye(size, dtype=D).roll(8, 0)  # W, without anything on its diagonal blocks
    f = lambda t, x: ((torch.eye(size, dtype=D) - matrix) @ x.unsqueeze(-1)).squeeze(-1)  # noqa: E731
    jacobian = BandedJacobian(8, 8)
    near = jacobian.linearise(f, torch.zeros((), dtype=D), random(size))
    factors = jacobian.factorise(near.jacobian, 1.0)
    assert factors.singular.item() is True
    assert jacobian.solve(f, factors, random(size)).x.isnan().all()


def test_the_memory_of_a_band_is_linear(random):
    size = 20_000
    diffusion = lambda t, x: torch.nn.functional.pad(x.diff(), (1, 1)).diff()  # noqa: E731
    jacobian = BandedJacobian(1, 1)
    x = random(size)
    near = jacobian.linearise(diffusion, torch.zeros((), dtype=D), x)
    factors = jacobian.factorise(near.jacobian, 100.0)
    numbers = near.jacobian.numel() + sum(part.numel() for level in factors.levels for part in level)
    assert numbers < 50 * size
    found = jacobian.solve(diffusion, factors, x).x
    torch.testing.assert_close(found - 100 * diffusion(0, found), x, rtol=0, atol=1e-10)
