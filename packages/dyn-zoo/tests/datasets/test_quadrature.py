from __future__ import annotations

import math

import pytest
import torch

from dyn_zoo.datasets._quadrature import gauss_legendre


@pytest.mark.parametrize("n_panels", [2, 3])
def test_is_exact_for_polynomials_up_to_degree_31_only(n_panels):
    spacing = 2 * math.pi / (32 * n_panels)
    node, weight = gauss_legendre(-0.5, 1.5, spacing, spacing)
    assert len(node) == 16 * n_panels
    for degree in range(32):
        exact = (1.5 ** (degree + 1) - (-0.5) ** (degree + 1)) / (degree + 1)
        assert float(weight @ node**degree) == pytest.approx(exact, rel=1e-13, abs=1e-13)
    if n_panels == 2:
        high = 40 * (node - 0.5)  # of degree 40 in the worst case
        exact = 2 / 41 * 40.0**40
        assert abs(float(weight @ high**40) / exact - 1) > 1e-13


def test_spacing_is_kept_inside_and_at_the_ends():
    node, weight = gauss_legendre(2.0, 5.0, 0.1, 0.001)
    step = node.diff()
    assert (step > 0).all()
    assert (weight > 0).all()
    assert 0.03 < step.max() <= 0.1
    assert step[:15].max() <= 0.001
    assert step[-15:].max() <= 0.001
    assert float(weight.sum()) == pytest.approx(3.0, rel=1e-14)


@pytest.mark.parametrize("sign", [1, -1])
def test_small_panels_at_the_ends_resolve_a_steep_fall(sign):
    rate = 5000.0
    exact = (1 - math.exp(-rate)) / rate
    errors = []
    for end_spacing in (0.1, 1 / rate):
        node, weight = gauss_legendre(0.0, 1.0, 0.1, end_spacing)
        distance = node if sign == 1 else 1 - node
        errors.append(abs(float(weight @ (-rate * distance).exp()) / exact - 1))
    assert errors[0] > 0.01
    assert errors[1] < 1e-12


def test_cached_nodes_are_ordinary_tensors():
    gauss_legendre.cache_clear()
    with torch.inference_mode():
        node, weight = gauss_legendre(0.0, 1.0, 0.25, 0.25)
    assert not node.is_inference()
    assert not weight.is_inference()
    assert gauss_legendre(0.0, 1.0, 0.25, 0.25)[0] is node


def test_ignores_the_default_device_and_dtype():
    gauss_legendre.cache_clear()
    with torch.device("meta"):
        node, weight = gauss_legendre(0.0, 1.0, 0.25, 0.1)
    assert node.device.type == weight.device.type == "cpu"
    assert node.dtype == weight.dtype == torch.float64
