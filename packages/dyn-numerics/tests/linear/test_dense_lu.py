"""Gaussian elimination: LAPACK's, and the same written out for compiled programs."""

import pytest
import torch

from dyn_numerics import DenseLU, MatrixOperator
from dyn_numerics.linear import dense_lu

D = torch.float64


@pytest.fixture(params=["library", "written out"])
def elimination(request, monkeypatch):
    """Both ways in Python, where the one that is written out can be looked into."""
    monkeypatch.setattr(dense_lu, "_unrolls", lambda matrix: request.param == "written out")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("lead", [(), (7,), (2, 3)])
def test_factors_make_the_matrix(elimination, size, lead, random):
    a = random(*lead, size, size)
    factors = DenseLU().factor(a)
    assert not factors.singular.any()
    lu, pivots = torch.linalg.lu_factor(a)
    if isinstance(factors, dense_lu.Factors):
        assert torch.equal(factors.pivots, pivots)
        found = factors.lu
    else:
        diagonal = torch.diagonal(factors.lu, dim1=-2, dim2=-1)
        found = factors.lu + torch.diag_embed(1 / diagonal - diagonal)
        exchanged = torch.lu_unpack(lu, pivots)[0].mT @ a
        assert torch.equal(a.gather(-2, factors.order.unsqueeze(-1).expand_as(a)), exchanged)
    torch.testing.assert_close(found, lu, rtol=0, atol=1e-12)
    for seed in (1, 2):
        b = random(*lead, size, seed=seed)
        torch.testing.assert_close(
            DenseLU().solve_factored(factors, b),
            torch.linalg.solve(a, b.unsqueeze(-1)).squeeze(-1),
            rtol=1e-10,
            atol=1e-10,
        )


def test_pivots_are_chosen_by_size(elimination):
    """Without exchanges the first pivot would be zero, or the small one would lose all digits of the others."""
    a = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1e-20, 1.0], [1.0, 1.0]]], dtype=D)
    factors = DenseLU().factor(a)
    x = DenseLU().solve_factored(factors, torch.tensor([[3.0, 2.0], [1.0, 2.0]], dtype=D))
    torch.testing.assert_close(x, torch.tensor([[2.0, 3.0], [1.0, 1.0]], dtype=D), rtol=0, atol=1e-15)
    exchanges = factors.pivots - 1 if isinstance(factors, dense_lu.Factors) else factors.order
    assert exchanges[:, 0].tolist() == [1, 1]


def test_a_singular_matrix_is_flagged_alone(elimination, random):
    a = random(5, 3, 3)
    a[1] = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    a[2] = 0
    a[3, 1, 1] = torch.nan
    b = random(5, 3, seed=1)
    found = DenseLU().solve(MatrixOperator(a), b)
    assert found.breakdown.tolist() == [False, True, True, True, False]
    assert found.converged.tolist() == [True, False, False, False, True]
    assert found.x[1:4].isnan().all()
    torch.testing.assert_close(found.x[[0, 4]], torch.linalg.solve(a[[0, 4]], b[[0, 4]]), rtol=1e-12, atol=1e-12)
    assert found.n_products == 1
    assert DenseLU().factor(a).singular.tolist() == [False, True, True, True, False]
