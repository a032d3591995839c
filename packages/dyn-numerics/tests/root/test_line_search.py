"""Armijo's line search: its rule, its parabola and what it costs."""

import math

import pytest
import torch

from dyn_numerics import Armijo, Context, root_find

D = torch.float64


def context(*norms):
    norm = torch.tensor(norms, dtype=D)
    return Context(norm.unsqueeze(-1), norm, 0, (), None, torch.ones_like(norm, dtype=torch.bool))


def test_a_length_is_accepted_for_its_part_of_the_decrease():
    search, length = Armijo(decrease=0.4), torch.tensor([0.5, 0.5, 1.0], dtype=D)
    norms = torch.tensor([0.79, 0.81, 0.61], dtype=D) * 3
    assert search.accepts(length, norms, context(3.0, 3.0, 3.0)).tolist() == [True, False, False]


def test_the_next_length_is_where_the_parabola_is_least():
    """Through |f|^2 at 0, its slope -2 |f|^2 there, and |f|^2 at the length that was tried."""
    length = torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0, 0.5], dtype=D)
    norm = torch.tensor([1.5, 1.2, 100.0, 0.99, math.nan, math.inf], dtype=D)
    found = Armijo().next_length(length, 2 * norm, context(*[2.0] * 6))
    first = 1 / (1.5**2 - 1 + 2)
    second = 0.25 / (1.2**2 - 1 + 2 * 0.5)
    torch.testing.assert_close(found, torch.tensor([first, second, 0.1, 0.5, 0.1, 0.05], dtype=D), rtol=1e-14, atol=0)


def test_samples_that_have_ended_try_no_lengths():
    """Beside a solved sample, and one that fails at its start, the search costs what it costs without them."""
    z0 = torch.tensor([[3.0], [0.0], [-1.0]], dtype=D)

    def g(z):
        return torch.where(z < -0.5, torch.nan, torch.atan(z))

    alone = root_find(g, z0[:1], solver="newton", line_search="armijo")
    beside = root_find(g, z0, solver="newton", line_search="armijo", throw=False)
    assert beside.stats.n_evals == alone.stats.n_evals
    assert torch.equal(beside.z[:1], alone.z)


def test_no_more_than_its_trials():
    """Along a direction in which the residual only rises: one evaluation at the start, the Jacobian, and the trials."""
    calls = []

    def g(z):
        calls.append(1)
        return z**2 + 1

    sol = root_find(
        g,
        torch.full((1, 1), 1e-3, dtype=D),
        solver="newton",
        line_search=Armijo(max_trials=4),
        throw=False,
        max_steps=1,
    )
    assert len(calls) == 2 + 4
    assert sol.z.item() == 1e-3
    assert not sol.status[0].is_success


@pytest.mark.parametrize("z0", [3.0, 20.0, -5.0])
def test_newton_with_it_converges_from_anywhere_on_arctan(z0):
    start = torch.full((1, 1), z0, dtype=D)
    sol = root_find(torch.atan, start, solver="newton", line_search="armijo", rtol=1e-15, atol=1e-12)
    assert abs(sol.z.item()) < 1e-12
