"""Memory whose size is known, in forward and backward passes."""

import torch

from dyn_sensitivity.live_bytes import LiveBytes

N = 1000


def test_what_lives_between_and_at_most():
    x = torch.ones(N, requires_grad=True)
    with LiveBytes() as memory:
        y = x.exp()  # kept for the backward pass
        loss = (3 * y).sum()  # 3 * y is not
        assert memory.live == 8 * N + 8
        assert memory.peak == 2 * 8 * N + 8
        del y
        assert memory.live == 8 * N + 8
        (gradient,) = torch.autograd.grad(loss, x)
        assert memory.live == 8 * N + 8 + gradient.nbytes - 8 * N  # the graph is gone
        del gradient, loss
    assert memory.live == 0


def test_what_is_made_in_a_backward_pass():
    x = torch.ones(N, requires_grad=True)
    with LiveBytes() as memory:
        loss = (2 * x).sum()
        before = memory.peak
        loss.backward()
        assert memory.peak > before
    assert memory.live == x.grad.nbytes + loss.nbytes


def test_what_was_there_before_and_views_count_for_nothing():
    x = torch.ones(10, N)
    with LiveBytes() as memory:
        x.mul_(2)
        parts = x.t()[3:5], x.view(-1)
    assert (memory.live, memory.peak) == (0, 0)
    assert len(parts) == 2


def test_nothing_is_weighed_outside():
    with LiveBytes() as memory:
        kept = torch.ones(N)
    other = torch.ones(N)
    assert memory.live == memory.peak == kept.nbytes == other.nbytes
