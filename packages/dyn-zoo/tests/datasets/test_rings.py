from __future__ import annotations

import math

import pytest
import torch

from dyn_zoo.datasets import Rings

RADII = (0.75, 1.5, 2.25, 3.0)
NOISE = 0.08


def test_radius_follows_a_rice_distribution_and_the_angle_is_uniform():
    x, label = Rings().sample_labelled(40_000, seed=0, dtype=torch.float64)
    for k, circle in enumerate(RADII):
        part = x[label == k]
        n = len(part)
        square = part.square().sum(dim=-1)
        # E ρ² = R² + 2σ², Var ρ² = 4σ²R² + 4σ⁴
        variance = 4 * NOISE**2 * circle**2 + 4 * NOISE**4
        assert abs(float(square.mean()) - circle**2 - 2 * NOISE**2) < 4 * math.sqrt(variance / n)
        assert float(square.var()) == pytest.approx(variance, rel=0.06)
        turn = torch.atan2(part[:, 1], part[:, 0]).sort().values / (2 * math.pi) + 0.5
        uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        assert (turn - uniform).abs().max() * math.sqrt(n) < 1.95  # Kolmogorov-Smirnov, probability 0.001


def test_log_prob_is_the_integral_along_the_circles():
    angle = torch.arange(4000, dtype=torch.float64) * (2 * math.pi / 4000)
    unit = torch.stack([angle.cos(), angle.sin()], dim=-1)
    circles = torch.cat([circle * unit for circle in RADII])
    x = torch.tensor([[0.0, 0.0], [0.0, 0.7], [-1.1, 0.2], [2.0, 2.2], [-3.0, -3.0], [8.0, 0.0]], dtype=torch.float64)
    square_distance = (x[:, None] - circles).square().sum(dim=-1)
    expected = torch.logsumexp(-square_distance / (2 * NOISE**2), dim=-1)
    expected = expected - math.log(len(circles)) - math.log(2 * math.pi * NOISE**2)
    torch.testing.assert_close(Rings().log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_entropy():
    assert Rings().entropy == pytest.approx(2.62318277, abs=1e-8)
    # Close to that of four lines with noise that do not overlap, each with probability 1/4.
    lines = sum(math.log(4 * 2 * math.pi * circle) for circle in RADII) / 4
    assert Rings().entropy == pytest.approx(lines + 0.5 * math.log(2 * math.pi * math.e * NOISE**2), abs=0.005)
