from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dyn_zoo.datasets import EightGaussians


@pytest.fixture(scope="module")
def reference():
    means = torch.tensor([[4, 0], [0, 4], [-4, 0], [0, -4]], dtype=torch.float64) / math.sqrt(2)
    diagonal = torch.tensor([[2, 2], [-2, 2], [-2, -2], [2, -2]], dtype=torch.float64)
    means = torch.stack([means, diagonal], dim=1).reshape(8, 2)  # counter-clockwise
    components = Independent(Normal(means, 0.5 / math.sqrt(2)), 1)
    return means, MixtureSameFamily(Categorical(torch.ones(8, dtype=torch.float64)), components)


def test_moments_by_label(reference):
    means, _ = reference
    x, label = EightGaussians().sample_labelled(80_000, seed=0, dtype=torch.float64)
    for k in range(8):
        part = x[label == k]
        assert ((part.mean(0) - means[k]).abs() < 4 * math.sqrt(0.125 / len(part))).all()
        torch.testing.assert_close(part.T.cov(), 0.125 * torch.eye(2, dtype=torch.float64), rtol=0.05, atol=0.005)


def test_log_prob(reference):
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    torch.testing.assert_close(EightGaussians().log_prob(x), reference[1].log_prob(x), rtol=1e-12, atol=1e-12)


def test_entropy(reference):
    # In polar coordinates, where the trapezoidal rule in the angle is as accurate as can be.
    radius = torch.arange(0.01, 8, 0.01, dtype=torch.float64)
    angle = torch.arange(0, 800, dtype=torch.float64) * (2 * math.pi / 800)
    x = radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    log_p = reference[1].log_prob(x)
    expected = -float((radius[:, None] * log_p.exp() * log_p).sum()) * 0.01 * 2 * math.pi / 800
    assert EightGaussians().entropy == pytest.approx(expected, abs=1e-9)
    assert EightGaussians().entropy == pytest.approx(2.83157836, abs=1e-8)
    # A little below that of eight Gaussians that do not overlap.
    apart = math.log(8) + math.log(2 * math.pi * math.e * 0.125)
    assert 0.005 < apart - EightGaussians().entropy < 0.008
