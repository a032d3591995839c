from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch.func import jacrev, vmap

from dyn_zoo.datasets import Pinwheel


def bend(blade: torch.Tensor, label: int = 0) -> torch.Tensor:
    """The definition: the point `[2]` of the plane of the point (r, s) `[2]` of a straight blade."""
    angle = 2 * math.pi * label / 5 + 0.25 * blade[0].exp()
    cos, sin = angle.cos(), angle.sin()
    return 2 * torch.stack([blade[0] * cos + blade[1] * sin, blade[1] * cos - blade[0] * sin])


def log_blade(blade: torch.Tensor) -> torch.Tensor:
    """Log density `[n]` of the straight blade at the points `[n, 2]`."""
    square = ((blade[:, 0] - 1) / 0.3) ** 2 + (blade[:, 1] / 0.1) ** 2
    return -0.5 * square - math.log(2 * math.pi * 0.3 * 0.1)


def test_means_by_label():
    x, label = Pinwheel().sample_labelled(50_000, seed=0, dtype=torch.float64)
    # E (r + i s) exp(-i e^r / 4) over r ~ N(1, 0.3²): s has mean 0 and drops out.
    z = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    weight = (-0.5 * z**2).exp() / (-0.5 * z**2).exp().sum()
    along = 1 + 0.3 * z
    mean = 2 * complex((weight * along * torch.polar(torch.ones_like(z), -along.exp() / 4)).sum())
    for k in range(5):
        part = x[label == k]
        expected = mean * cmath.exp(-2j * math.pi * k / 5)
        error = part.mean(0) - torch.tensor([expected.real, expected.imag], dtype=torch.float64)
        assert (error.abs() < 4 * part.std(0) / math.sqrt(len(part))).all()
    # E |x|² = 4 (1 + 0.3² + 0.1²)
    square = x.square().sum(dim=-1)
    assert abs(float(square.mean()) - 4.4) < 4 * float(square.std()) / math.sqrt(len(x))


@pytest.mark.parametrize("label", range(5))
def test_log_prob_on_a_blade_is_a_change_of_variables(label):
    # Where the other blades are too far away to be seen.
    along, across = torch.meshgrid(torch.linspace(1.1, 1.7, 7), torch.linspace(-0.15, 0.15, 7), indexing="ij")
    blade = torch.stack([along.reshape(-1), across.reshape(-1)], dim=-1).double()
    x = torch.stack([bend(point, label) for point in blade])
    jacobian = vmap(jacrev(lambda point: bend(point, label)))(blade)
    expected = log_blade(blade) - math.log(5) - torch.linalg.det(jacobian).abs().log()
    torch.testing.assert_close(Pinwheel().log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_log_prob_sums_over_all_points_of_the_blades_that_meet():
    # In the middle, where blades overlap, and far out, where each folds over. All (r, s) of the radius of x and all k
    # are searched on a fine grid; between two of its nodes the crossing is found by linear interpolation.
    x = torch.tensor([[0.1, 0.05], [-0.3, 0.2], [3.1, 2.9], [5.4, -1.0], [-5.0, 3.0]], dtype=torch.float64)
    n_found = []
    for point in x:
        radius = float(point.norm()) / 2
        polar = torch.linspace(-math.pi, math.pi, 400_001, dtype=torch.float64)
        unbent = (polar - 0.25 * (radius * polar.cos()).exp() - math.atan2(point[1], point[0])) * 5 / (2 * math.pi)
        start, end = unbent[:-1], unbent[1:]
        crossed = torch.maximum(start, end).floor() > torch.minimum(start, end).floor()
        level = torch.maximum(start, end).floor()[crossed]
        fraction = (level - start[crossed]) / (end - start)[crossed]
        root = polar[:-1][crossed] + fraction * (2 * math.pi / 400_000)
        blade = radius * torch.stack([root.cos(), root.sin()], dim=-1)
        area = 4 * (1 + 0.25 * blade[:, 0].exp() * blade[:, 1]).abs()  # bend's Jacobian determinant
        expected = torch.logsumexp(log_blade(blade) - area.log(), dim=0) - math.log(5)
        n_found.append(len(root))
        torch.testing.assert_close(Pinwheel().log_prob(point), expected, rtol=1e-6, atol=1e-6)
    assert n_found[:2] == [5, 5]  # one point of each blade
    assert min(n_found[2:]) > 5  # folded over


def test_log_prob_has_the_symmetry_of_five_blades():
    x = Pinwheel().sample(200, seed=1, dtype=torch.float64)
    cos, sin = math.cos(2 * math.pi / 5), math.sin(2 * math.pi / 5)
    turned = x @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    torch.testing.assert_close(Pinwheel().log_prob(turned), Pinwheel().log_prob(x), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(Pinwheel().log_prob(x * torch.tensor([1.0, -1.0])), Pinwheel().log_prob(x), atol=0.1)


def test_gradient_where_blades_overlap_and_fold():
    x = torch.tensor([[0.1, 0.05], [-0.3, 0.2], [3.1, 2.9], [5.4, -1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Pinwheel().log_prob, x)


def test_log_prob_far_away():
    x = torch.tensor([[9.99, 0.0], [10.01, 0.0], [1e6, 1e6]], dtype=torch.float64, requires_grad=True)
    log_p = Pinwheel().log_prob(x)
    assert -200 < log_p[0] < math.log(1e-37)
    assert log_p[1] == log_p[2] == -math.inf
    (gradient,) = torch.autograd.grad(log_p[0], x)
    assert gradient.isfinite().all()


def test_entropy():
    assert Pinwheel().entropy == pytest.approx(2.317788, abs=1e-6)
    # What bending and overlap take away from five straight blades far apart is little.
    apart = math.log(5) + math.log(2 * math.pi * math.e * 0.3 * 0.1) + math.log(4)
    assert 0 < apart - Pinwheel().entropy < 0.02
