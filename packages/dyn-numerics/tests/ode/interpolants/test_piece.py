"""The solution over one step."""

import torch

from dyn_numerics.ode.interpolants.piece import Piece

D = torch.float64


def cubic(theta):
    return torch.stack([theta**3 - 2 * theta, 1 + theta**2], dim=-1)


def piece(t0, t1):
    coefficients = torch.tensor([[0.0, 1.0], [-2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=D)
    return Piece(t0, t1, cubic(torch.ones((), dtype=D)), lambda: coefficients)


def test_states_slopes_and_positions():
    step, theta = piece(1.0, 3.0), torch.tensor(0.3, dtype=D)
    torch.testing.assert_close(step.state(0.3), cubic(theta), rtol=0, atol=1e-15)
    torch.testing.assert_close(step.state(theta), cubic(theta), rtol=0, atol=1e-15)
    torch.testing.assert_close(step.slope(0.3), torch.tensor([3 * 0.09 - 2, 0.6], dtype=D) / 2, rtol=0, atol=1e-15)
    assert (step.time(0.25), step.position(1.5)) == (1.5, 0.25)
    assert piece(3.0, 1.0).position(2.5) == 0.25


def test_a_part_is_a_step_of_its_own():
    whole, theta = piece(0.0, 2.0), torch.tensor(0.4, dtype=D)
    part = Piece(0.0, 0.8, whole.state(0.4), lambda: whole.until(theta))
    for share in (0.0, 0.25, 0.9):
        torch.testing.assert_close(part.state(share), whole.state(0.4 * share), rtol=0, atol=1e-15)
        torch.testing.assert_close(part.slope(share), whole.slope(0.4 * share), rtol=0, atol=1e-14)


def test_ends_are_ends_whatever_the_rounding():
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand(200, 2, dtype=D, generator=generator) * torch.tensor([-100.0, 1e-3], dtype=D)
    rounded = 0
    for t0, t1 in ends.tolist():
        assert piece(t0, t1).time(1.0) == t1
        rounded += t0 + 1.0 * (t1 - t0) != t1
    assert rounded > 10
    many = Piece(ends[:, 0], ends[:, 1], torch.zeros(200, 1, dtype=D), lambda: torch.zeros(200, 2, 1, dtype=D))
    assert torch.equal(many.time(torch.ones(200, dtype=D)), ends[:, 1])


def test_a_point():
    x = torch.tensor([1.0, 2.0], dtype=D)
    point = Piece.point(0.5, x)
    assert point.position(0.5) == 1
    assert torch.equal(point.state(1.0), x)
    assert torch.equal(point.state(0.3), x)
