from __future__ import annotations

import math

import pytest
import torch

from dyn_zoo.datasets import TwoSpirals


def test_moments():
    n = 100_000
    x, label = TwoSpirals().sample_labelled(n, seed=0, dtype=torch.float64)
    # With the density 2θ / (3π)² of θ: E θ cos θ = -4 / (3π), E θ sin θ = 2 - 8 / (9π²), E θ² = 9π² / 2.
    curve = torch.tensor([4 / (9 * math.pi), 2 / 3 - 8 / (27 * math.pi**2)], dtype=torch.float64)
    mean = curve + 1 / 12
    for k, sign in ((0, 1), (1, -1)):
        part = x[label == k]
        assert ((part.mean(0) - sign * mean).abs() < 4 * part.std(0) / math.sqrt(len(part))).all()
    square = x.square().sum(-1)
    expected = math.pi**2 / 2 + float(curve.sum()) / 6 + 2 / (3 * 36) + 2 * 0.1**2
    assert abs(float(square.mean()) - expected) < 4 * float(square.std()) / math.sqrt(n)


def test_points_lie_close_to_the_arm_of_their_label():
    x, label = TwoSpirals().sample_labelled(500, seed=1, dtype=torch.float64)
    angle = torch.linspace(0, 3 * math.pi, 2000, dtype=torch.float64)
    arm = torch.stack([-angle * angle.cos(), angle * angle.sin()], dim=-1) / 3 + 1 / 12
    sign = (1 - 2 * label)[:, None]
    own = torch.cdist(sign * x, arm).min(dim=1).values
    assert own.max() < 0.55  # half the diagonal of the uniform noise, and over 4 standard deviations
    assert own.mean() < 0.12
    other = torch.cdist(-sign * x, arm).min(dim=1).values
    away = x.norm(dim=-1) > 0.7  # in the middle the arms meet
    assert (own < other)[away].double().mean() > 0.99


def test_log_prob_is_the_integral_over_all_that_is_random():
    # θ by the midpoint rule and the noise of each coordinate by the error function, where its difference is accurate.
    angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) * (3 * math.pi / 200_000)
    weight = angle / angle.sum()
    curve = torch.stack([-angle * angle.cos(), angle * angle.sin()], dim=-1) / 3
    x = torch.tensor([[0.0, 0.0], [0.3, -0.2], [3.2, 0.1], [1.0, 1.0], [-2.0, 1.5], [0.4, 3.0]], dtype=torch.float64)

    def noise_density(offset):
        scale = 0.1 * math.sqrt(2)
        return 3 * (torch.erf(offset / scale) - torch.erf((offset - 1 / 6) / scale))

    p = sum(noise_density(sign * x[:, None] - curve).prod(dim=-1) @ weight for sign in (1, -1)) / 2
    torch.testing.assert_close(TwoSpirals().log_prob(x).exp(), p, rtol=1e-8, atol=1e-10)


def test_log_prob_stays_accurate_far_away():
    # log p ≈ -d² / (2 noise²) - ..., with d the distance from the nearest corner of the noise's support: between
    # neighbouring radii its slope is known to a per cent.
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    radius = torch.tensor([20.0, 40.0], dtype=torch.float64, requires_grad=True)
    log_p = TwoSpirals().log_prob(radius[:, None] * direction)
    (slope,) = torch.autograd.grad(log_p.sum(), radius)
    angle = torch.linspace(0, 3 * math.pi, 20_000, dtype=torch.float64)
    curve = torch.stack([-angle * angle.cos(), angle * angle.sin()], dim=-1) / 3
    for k in range(2):
        points = torch.cat(
            [sign * (curve + torch.tensor([a, b])) for sign in (1, -1) for a in (0, 1 / 6) for b in (0, 1 / 6)]
        )
        nearest = points[(points - radius[k].detach() * direction).norm(dim=-1).argmin()]
        expected = -((radius[k].detach() * direction - nearest) @ direction) / 0.1**2
        assert float(slope[k]) == pytest.approx(float(expected), rel=0.01)


def test_log_prob_does_not_change_when_mirrored_at_the_origin():
    x = TwoSpirals().sample(50, seed=2, dtype=torch.float64)
    torch.testing.assert_close(TwoSpirals().log_prob(x), TwoSpirals().log_prob(-x), rtol=1e-12, atol=1e-12)


def test_entropy():
    assert TwoSpirals().entropy == pytest.approx(2.64545028, abs=1e-8)
