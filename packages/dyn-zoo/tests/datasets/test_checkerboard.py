from __future__ import annotations

import math

import pytest
import torch

from dyn_zoo.datasets import Checkerboard

# Lower left corners of the dark squares in the order of their labels.
CORNERS = torch.tensor([[-4, -4], [-4, 0], [-2, -2], [-2, 2], [0, -4], [0, 0], [2, -2], [2, 2]], dtype=torch.float64)


def test_points_are_uniform_on_the_square_of_their_label():
    x, label = Checkerboard().sample_labelled(20_000, seed=0, dtype=torch.float64)
    inside = (x - CORNERS[label]) / 2  # uniform on the unit square
    assert inside.min() >= 0
    assert inside.max() <= 1
    for k in range(8):
        part = inside[label == k].sort(dim=0).values
        uniform = (torch.arange(len(part), dtype=torch.float64) + 0.5) / len(part)
        assert (part - uniform[:, None]).abs().max() * math.sqrt(len(part)) < 1.95  # Kolmogorov-Smirnov, 0.001
    correlation = inside.T.corrcoef()[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(len(inside))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_no_sample_is_rounded_off_the_board(dtype):
    x = Checkerboard().sample(20_000, seed=1, dtype=dtype)
    expected = torch.full((20_000,), -math.log(32), dtype=dtype)
    torch.testing.assert_close(Checkerboard().log_prob(x), expected)


def test_log_prob_of_the_definition_in_the_literature():
    generator = torch.Generator().manual_seed(0)
    x1 = torch.rand(5000, generator=generator, dtype=torch.float64) * 4 - 2
    x2 = torch.rand(5000, generator=generator, dtype=torch.float64)
    x2 = x2 - 2 * torch.randint(0, 2, (5000,), generator=generator) + x1.floor() % 2
    x = 2 * torch.stack([x1, x2], dim=-1)
    assert (Checkerboard().log_prob(x) == -math.log(32)).all()
    # One square to the side, all squares are light or off the board.
    assert (Checkerboard().log_prob(x + torch.tensor([2.0, 0.0])) == -math.inf).all()
    assert (Checkerboard().log_prob(x - torch.tensor([0.0, 2.0])) == -math.inf).all()


def test_edges():
    inside = torch.tensor([[-4.0, -4.0], [0.0, 0.0], [4.0, 4.0], [4.0, 3.0], [-3.0, 0.0], [2.0, -2.0]])
    outside = torch.tensor([[-4.0, 4.0], [4.0, 1.0], [-4.0, -1.0], [4.001, 3.0], [-4.001, -3.0], [3.0, 4.001]])
    assert (Checkerboard().log_prob(inside) > -4).all()
    assert (Checkerboard().log_prob(outside) == -math.inf).all()


def test_entropy():
    assert Checkerboard().entropy == pytest.approx(math.log(32), abs=1e-15)
