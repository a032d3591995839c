"""Operations whose number, reads, bytes and memory are known."""

import pytest
import torch

from dyn_bench.protocols.operations import CountOperations, gradient_bytes

N = 1000
SIZE = 8 * N


def counted(work):
    x, y = torch.ones(N, dtype=torch.float64), torch.ones(N, dtype=torch.float64)
    with CountOperations() as counts:
        work(x, y)
    return counts


@pytest.mark.parametrize(
    ("work", "computes", "moved"),
    [
        (lambda x, y: x + y, 1, 3),
        (lambda x, y: 2 * x, 1, 2),
        (lambda x, y: x.add_(y), 1, 3),
        (lambda x, y: x.copy_(y), 1, 2),
        (lambda x, y: x.zero_(), 1, 1),
        (lambda x, y: torch.zeros(N, dtype=x.dtype), 1, 1),
        (lambda x, y: x.clone(), 1, 2),
        (lambda x, y: torch.cat([x, y]), 1, 4),
        (lambda x, y: torch.add(x, y, out=torch.empty_like(x)), 1, 3),
        (lambda x, y: torch.where(x > 0, x, y), 2, 1 + 1 / 8 + 1 / 8 + 3),
        (lambda x, y: x.view(10, 100).t()[3:5].unsqueeze(0).expand(7, -1, -1), 0, 0),
        (lambda x, y: torch.empty(N), 0, 0),
        (lambda x, y: torch.split(x, 100), 0, 0),
        (lambda x, y: x.detach(), 0, 0),
        (lambda x, y: torch.mv(x.view(10, 100).t(), y[:10]), 1, 1 + 0.01 + 0.1),
    ],
)
def test_computes_and_bytes(work, computes, moved):
    counts = counted(work)
    assert counts.computes == computes
    assert counts.moved == moved * SIZE
    assert counts.reads == 0


@pytest.mark.parametrize(
    ("work", "reads"),
    [
        (lambda x, y: x[0].item(), 1),
        (lambda x, y: x.tolist(), 1),
        (lambda x, y: bool(x[0] > 0), 1),
        (lambda x, y: float(x[0]) + int(y[0]), 2),
        (lambda x, y: torch.equal(x, y), 1),
        (lambda x, y: x.nonzero(), 1),
        (lambda x, y: x[y > 0], 1),
        (lambda x, y: x.index_put_((y > 0,), x[0]), 1),
        (lambda x, y: x[torch.tensor([1, 2])], 0),
        (lambda x, y: x.numpy(), 1),
        (lambda x, y: x + y, 0),
        (lambda x, y: len(x) + x.dim(), 0),
    ],
)
def test_reads(work, reads):
    assert counted(work).reads == reads


def test_memory_is_that_of_tensors_made_within():
    outside = torch.ones(10 * N)
    with CountOperations() as counts:
        outside.view(-1).mul_(2)
        assert counts.live == 0
        a = outside[:N] + 1  # 4 bytes each
        assert counts.live == 4 * N
        part = a.view(10, -1)[3]
        del a
        assert counts.live == 4 * N  # a view keeps it alive
        b = torch.cat([part, part]).double()  # 200 floats on the way
        assert counts.live == 4 * N + 1600
        assert counts.peak == 4 * N + 1600 + 800
        del part
        assert counts.live == 1600
        del b
    assert counts.live == 0
    assert counts.peak == 4 * N + 1600 + 800


def test_memory_of_what_was_made_within_and_lives_on():
    with CountOperations() as counts:
        kept = torch.ones(N)
    assert counts.live == 4 * N
    del kept
    assert counts.live == 0


def test_nothing_is_counted_outside():
    counts = counted(lambda x, y: x + y)
    (torch.ones(3) + 1).tolist()
    assert (counts.computes, counts.reads) == (1, 0)


def test_bytes_of_a_gradient_are_those_it_keeps_and_those_it_takes():
    x = torch.ones(N, requires_grad=True)
    kept, peak = gradient_bytes(lambda: (3 * (2 * x).exp()).sum(), [x])
    assert kept == 4 * N + 4  # the exponentials, and the loss
    assert peak >= kept + 4 * N
    assert x.grad is None
