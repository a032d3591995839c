"""Prepared searches against closed forms."""

import pytest
import torch

from dyn_bench.protocols import root_solve
from dyn_bench.protocols.root_solve import dyn_fixed_point, dyn_fixed_point_gradient, dyn_root
from dyn_numerics import SolverError, Termination


@pytest.fixture
def calls():
    return []


@pytest.mark.parametrize(
    ("solver", "compact"), [("anderson", False), ("broyden", False), ("fixed_point", False), ("fixed_point", True)]
)
def test_fixed_points_and_evaluations(calls, solver, compact):
    def h(z, rate, offset):
        calls.append(len(z))
        return rate * z + offset

    rate = torch.linspace(0, 0.8, 5, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    offset, z0 = torch.arange(1.0, 6).double().unsqueeze(-1), torch.zeros(5, 1, dtype=torch.float64)
    solve = dyn_fixed_point(h, z0, tolerance=1e-13, solver=solver, args=(rate, offset), compact=compact)
    calls.clear()  # what is prepared does not work
    solution = solve.run()
    assert solve.evaluations(solution) == len(calls)
    assert (min(calls) < 5) == compact
    z = solve.values(solution)
    assert not z.requires_grad
    torch.testing.assert_close(z, (offset / (1 - rate)).detach(), rtol=1e-12, atol=0)


def test_the_tolerance_is_relative_to_the_map():
    for scale in (1e-6, 1.0, 1e6):
        h, z0 = (lambda z, s=scale: 0.5 * z + s), torch.zeros(1, 1, dtype=torch.float64)
        solve = dyn_fixed_point(h, z0, tolerance=1e-4, solver="fixed_point")
        residual = (h(z := solve.values(solve.run())) - z) / h(z)
        assert 0.5e-4 < residual.item() <= 1e-4


def test_roots_by_name_of_method_and_line_search():
    z0 = torch.full((1, 1), 3.0, dtype=torch.float64)
    alone, searched = (dyn_root(torch.atan, z0, tolerance=1e-10, line_search=name) for name in (None, "armijo"))
    assert searched.values(result := searched.run()).abs().item() < 1e-9
    assert searched.evaluations(result) > 10
    with pytest.raises(SolverError):
        alone.values(alone.run())


def test_a_search_goes_on_until_its_steps_are_small():
    z0 = torch.ones(1, 1, dtype=torch.float64)
    early = dyn_root(torch.square, z0, tolerance=1e-4)
    late = dyn_root(torch.square, z0, tolerance=1e-4, termination=Termination(step_atol=1e-9))
    assert 1e-3 < early.values(early.run()).item() <= 1e-2
    assert 0.2e-9 < late.values(late.run()).item() <= 1e-9


def test_a_search_is_compiled_where_that_is_wanted(monkeypatch):
    compiled = []
    monkeypatch.setattr(root_solve, "compile_whole", lambda function: compiled.append(function) or function)
    z0 = torch.ones(1, 1, dtype=torch.float64)
    dyn_root(torch.square, z0, tolerance=1e-4)
    assert compiled == []
    dyn_root(torch.square, z0, tolerance=1e-4, compiled=True)
    assert len(compiled) == 1


@pytest.mark.parametrize("linear_solver", [None, "gmres", "fixed_point"])
def test_gradients_of_fixed_points(linear_solver):
    class Affine(torch.nn.Module):
        """Its fixed points are x b / (1 - w)."""

        def __init__(self):
            super().__init__()
            self.w, self.b = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (0.4, 3.0))

        def forward(self, z, x):
            return self.w * z + self.b * x

    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    solve = dyn_fixed_point_gradient(
        Affine(),
        torch.zeros_like(x),
        tolerance=1e-12,
        loss=lambda z: z.square().sum() / 2,
        linear_solver=linear_solver,
        args=(x,),
    )
    expected = [5 * 9 / 0.6**3, 5 * 3 / 0.6**2]
    assert solve.values(solve.run()).tolist() == pytest.approx(expected, rel=1e-9)
