"""Linear systems as fixed points."""

from __future__ import annotations

import pytest
import torch

from dyn_numerics import MatrixOperator
from dyn_sensitivity import FixedPointLinearSolver


@pytest.mark.parametrize("solver", ["anderson", "fixed_point", "broyden"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_tolerance_is_relative_to_the_right_hand_side(solver, scale):
    matrix = 0.7 * torch.randn(4, 12, 12) / 12**0.5 - torch.eye(12)
    b = scale * torch.randn(4, 12)
    b[1] = 0
    found = FixedPointLinearSolver(solver, rtol=1e-6).solve(MatrixOperator(matrix), b)
    residual = (b - (matrix @ found.x.unsqueeze(-1)).squeeze(-1)).norm(dim=-1)
    assert found.converged.all()
    assert (residual <= 1e-6 * b.norm(dim=-1)).all()
    assert (residual[[0, 2, 3]] > 1e-9 * b.norm(dim=-1)[[0, 2, 3]]).all()
    torch.testing.assert_close(found.residual, residual, rtol=1e-6, atol=1e-13 * scale)
    assert found.n_steps[1].item() == 0
    assert found.n_products == found.n_steps.max() + 1


def test_what_does_not_contract_breaks_down():
    stable, unstable = -0.5 * torch.eye(2), 2.0 * torch.eye(2)  # the map x + A x halves, or triples
    found = FixedPointLinearSolver("fixed_point").solve(
        MatrixOperator(torch.stack([stable, unstable])), torch.ones(2, 2)
    )
    assert found.converged.tolist() == [True, False]
    assert found.breakdown.tolist() == [False, True]
    few = FixedPointLinearSolver("fixed_point", max_steps=3).solve(
        MatrixOperator(stable.unsqueeze(0)), torch.ones(1, 2)
    )
    assert not few.converged.any()
    assert not few.breakdown.any()
