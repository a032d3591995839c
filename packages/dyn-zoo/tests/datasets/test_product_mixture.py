from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.distributions import Laplace, Normal

from dyn_zoo.datasets._product_mixture import gaussian_log_kernel, mixture_entropy, mixture_log_prob

CENTRES = torch.tensor([[0.0, 0.0], [3.0, -1.0], [0.5, 0.2]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def test_gaussian_log_kernel():
    offset = torch.linspace(-3, 3, 13, dtype=torch.float64)
    expected = Normal(0.0, torch.tensor(0.7, dtype=torch.float64)).log_prob(offset)
    torch.testing.assert_close(gaussian_log_kernel(offset, 0.7), expected)


def test_log_prob_of_a_mixture_with_another_kernel():
    kernel = Laplace(torch.zeros((), dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64))
    x = torch.randn(2**16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # several chunks
    p = torch.zeros(len(x), dtype=torch.float64)
    for centre, weight in zip(CENTRES, WEIGHTS, strict=True):
        p += weight * (-(x - centre).abs() / 0.4).exp().prod(dim=-1) / 0.8**2
    torch.testing.assert_close(mixture_log_prob(x, CENTRES, WEIGHTS.log(), kernel.log_prob), p.log())


def test_entropy_of_one_gaussian():
    std = 0.3
    entropy = mixture_entropy(
        CENTRES[:1], torch.ones(1, dtype=torch.float64), partial(gaussian_log_kernel, std=std), reach=2.7, spacing=0.06
    )
    assert entropy == pytest.approx(math.log(2 * math.pi * math.e * std**2), abs=1e-12)


def test_entropy_of_far_parts_adds_that_of_the_weights():
    std = 0.05
    far = torch.tensor([[0.0, 0.0], [3.0, -1.0], [-2.0, 2.0]], dtype=torch.float64)
    entropy = mixture_entropy(far, WEIGHTS, partial(gaussian_log_kernel, std=std), reach=0.45, spacing=0.02)
    expected = math.log(2 * math.pi * math.e * std**2) - float((WEIGHTS * WEIGHTS.log()).sum())
    assert entropy == pytest.approx(expected, abs=1e-10)
