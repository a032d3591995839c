"""Weights through given nodes: Adams' fractions on even ones, and exact on polynomials on any."""

import math

import pytest
import torch

from dyn_numerics.ode.interpolants.quadrature import quadrature

BASHFORTH = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
MOULTON = {1: [1], 2: [1 / 2, 1 / 2], 3: [5 / 12, 8 / 12, -1 / 12], 4: [9 / 24, 19 / 24, -5 / 24, 1 / 24]}
# Error constants of the two: Hairer, Norsett, Wanner: Solving ODEs I, equations (1.6) and (1.9) of section III.1.
OF_BASHFORTH = {1: 1 / 2, 2: 5 / 12, 3: 3 / 8, 4: 251 / 720}
OF_MOULTON = {1: -1 / 2, 2: -1 / 12, 3: -1 / 24, 4: -19 / 720}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("first", "expected", "constants"), [(0.0, BASHFORTH, OF_BASHFORTH), (1.0, MOULTON, OF_MOULTON)]
)
def test_even_nodes_give_the_classical_coefficients(first, expected, constants, order):
    weights, defect = quadrature([first - i for i in range(order)])
    assert weights == pytest.approx(expected[order], abs=1e-14)
    assert defect / math.factorial(order) == pytest.approx(constants[order], abs=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_exact_on_polynomials_on_any_nodes(count):
    generator = torch.Generator().manual_seed(count)
    nodes = (-3 * torch.rand(count, 40, dtype=torch.float64, generator=generator)).sort(0).values
    nodes -= 0.1 * torch.arange(count, 0, -1, dtype=torch.float64).unsqueeze(-1)  # apart
    weights, defect = quadrature(list(nodes))
    for power in range(count):
        found = sum(w * s**power for w, s in zip(weights, nodes, strict=True))
        torch.testing.assert_close(found, torch.full_like(found, 1 / (power + 1)), rtol=0, atol=1e-10)
    found = sum(w * s**count for w, s in zip(weights, nodes, strict=True))
    torch.testing.assert_close(found + defect, torch.full_like(found, 1 / (count + 1)), rtol=1e-10, atol=1e-9)
    assert (defect.abs() > 1e-3).all()


def test_host_numbers_and_tensors_agree():
    nodes = [1.0, 0.0, -0.7, -1.9]
    weights, defect = quadrature(nodes)
    of_tensors, defects = quadrature([torch.full((2,), node, dtype=torch.float64) for node in nodes])
    for a, b in zip([*weights, defect], [*of_tensors, defects], strict=True):
        torch.testing.assert_close(b, torch.full_like(b, a), rtol=1e-14, atol=1e-15)
