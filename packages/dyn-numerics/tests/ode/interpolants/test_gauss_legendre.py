from __future__ import annotations

import math

import pytest

from dyn_numerics.ode.interpolants.gauss_legendre import gauss_legendre


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_degree(n):
    nodes, weights = gauss_legendre(n)
    assert all(0 < x < 1 for x in nodes)
    for power in range(2 * n):
        integral = sum(w * x**power for x, w in zip(nodes, weights, strict=True))
        assert integral == pytest.approx(1 / (power + 1), abs=1e-14)
    missed = 1 / (2 * n + 1) - sum(w * x ** (2 * n) for x, w in zip(nodes, weights, strict=True))
    expected = math.factorial(n) ** 4 / ((2 * n + 1) * math.factorial(2 * n) ** 2)  # of the monic Legendre polynomial
    assert missed == pytest.approx(expected, rel=1e-4, abs=1e-15)
