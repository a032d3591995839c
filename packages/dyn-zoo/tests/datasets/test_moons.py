from __future__ import annotations

import math

import pytest
import torch

from dyn_zoo.datasets import Moons


def angle_on_own_arc(x, label):
    """Angle θ on the arc of the label, and distance from that arc's centre."""
    upper = label == 0
    along = torch.where(upper, x[:, 0], 1 - x[:, 0])
    up = torch.where(upper, x[:, 1], 0.5 - x[:, 1])
    return torch.atan2(up, along), torch.hypot(up, along)


def test_without_noise_points_lie_evenly_on_the_arc_of_their_label():
    n = 10_000
    x, label = Moons(noise=0.0).sample_labelled(n, seed=0, dtype=torch.float64)
    angle, radius = angle_on_own_arc(x, label)
    torch.testing.assert_close(radius, torch.ones_like(radius))
    assert angle.min() >= 0
    assert angle.max() <= math.pi
    for part in (angle[label == 0], angle[label == 1]):
        uniform = (torch.arange(len(part), dtype=torch.float64) + 0.5) / len(part)
        kolmogorov_smirnov = (part.sort().values / math.pi - uniform).abs().max() * math.sqrt(len(part))
        assert kolmogorov_smirnov < 1.95  # probability 0.001


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.4])
def test_moments(noise):
    n = 40_000
    x, label = Moons(noise=noise).sample_labelled(n, seed=1, dtype=torch.float64)
    covariance = torch.tensor([[0.5 + noise**2, 0.0], [0.0, 0.5 - 4 / math.pi**2 + noise**2]], dtype=torch.float64)
    for k, mean in ((0, (0.0, 2 / math.pi)), (1, (1.0, 0.5 - 2 / math.pi))):
        part = x[label == k]
        error = (part.mean(0) - torch.tensor(mean, dtype=torch.float64)).abs()
        assert (error < 4 * covariance.diagonal().sqrt() / math.sqrt(len(part))).all()
        torch.testing.assert_close(part.T.cov(), covariance, rtol=0.03, atol=0.005)


def test_noise_is_gaussian_with_the_given_standard_deviation():
    n = 40_000
    clean, noisy = (Moons(noise=noise).sample(n, seed=2, dtype=torch.float64) for noise in (0.0, 0.1))
    z = (noisy - clean) / 0.1
    assert (z.mean(0).abs() < 4 / math.sqrt(n)).all()
    assert ((z.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / n)).all()
    assert ((z**4).mean(0) - 3).abs().max() < 4 * math.sqrt(96 / n)
    assert abs(float((z[:, 0] * z[:, 1]).mean())) < 4 / math.sqrt(n)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_log_prob_is_the_integral_along_the_arcs(noise):
    angle = (torch.arange(100_000, dtype=torch.float64) + 0.5) * (math.pi / 100_000)
    arcs = torch.cat(
        [
            torch.stack([angle.cos(), angle.sin()], dim=-1),
            torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=-1),
        ]
    )
    # On an arc, near its end, between the arcs, in a centre of curvature, and far away in front and behind.
    x = torch.tensor(
        [[0.0, 1.0], [1.0, -0.01], [0.5, 0.25], [0.0, 0.0], [1.0, 0.5], [6.0, 7.5], [-7.0, -7.0]], dtype=torch.float64
    )
    square_distance = (x[:, None] - arcs).square().sum(-1)
    expected = torch.logsumexp(-square_distance / (2 * noise**2), dim=-1)
    expected = expected - math.log(len(arcs)) - math.log(2 * math.pi * noise**2)
    torch.testing.assert_close(Moons(noise=noise).log_prob(x), expected, rtol=1e-6, atol=1e-6)


def test_entropy_with_little_noise_is_that_of_a_line_of_length_two_pi_with_four_ends():
    # Beyond an end the density along the line falls off as Φ(u / noise), which adds noise / (2π) ∫ -Φ log Φ du.
    u = torch.arange(-12, 12, 0.01, dtype=torch.float64)
    log_phi = torch.special.log_ndtr(u)
    ends = 4 / (2 * math.pi) * -float((log_phi.exp() * log_phi).sum()) * 0.01
    for noise in (0.01, 0.02, 0.04):
        line = math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e * noise**2)
        # What is left, by curvature, is of second order.
        assert abs(Moons(noise=noise).entropy - line - ends * noise) < 0.3 * noise**2


def test_entropy_with_much_noise_is_that_of_a_gaussian():
    noise = 10.0
    between = torch.tensor([0.5, 0.25 - 2 / math.pi], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([0.5, 0.5 - 4 / math.pi**2], dtype=torch.float64) + noise**2)
    covariance += torch.outer(between, between)
    gaussian = math.log(2 * math.pi * math.e) + 0.5 * float(torch.logdet(covariance))
    assert Moons(noise=noise).entropy == pytest.approx(gaussian, abs=1e-6)


def test_entropy_of_the_default():
    assert Moons() == Moons(noise=0.1)
    assert Moons().entropy == pytest.approx(1.00758483, abs=1e-8)


@pytest.mark.parametrize("noise", [0, 0.0, 0.0099])
def test_with_hardly_any_noise_there_is_no_density(noise):
    data = Moons(noise=noise)
    assert data.sample(10, seed=0).isfinite().all()
    assert data.entropy is None
    with pytest.raises(NotImplementedError, match=r"noise of at least 0\.01, got"):
        data.log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("noise", "error", "message"),
    [
        (-0.1, ValueError, r"noise: got -0\.1, expected a finite standard deviation of at least 0"),
        (math.nan, ValueError, r"noise: got nan"),
        (math.inf, ValueError, r"noise: got inf"),
        ("0.1", TypeError, r"noise: got '0\.1' of type str, expected a real number"),
        (True, TypeError, r"noise: got True of type bool"),
        (None, TypeError, r"noise: got None"),
    ],
)
def test_refuses_bad_noise(noise, error, message):
    with pytest.raises(error, match=message):
        Moons(noise=noise)
