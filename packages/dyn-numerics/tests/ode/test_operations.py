"""What a step costs, counted: operations that compute, and reads by the host."""

import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dyn_numerics import Callbacks, Dopri5, odeint

FREE = {
    "view", "t", "slice", "select", "unbind", "detach", "expand", "alias", "unsqueeze", "squeeze", "transpose",
    "permute", "as_strided", "_unsafe_view", "split", "unfold", "lift_fresh", "is_same_size",
    "empty", "new_empty", "empty_like", "empty_strided",
}  # fmt: skip
LARGE = 1000  # what has fewer elements is no state, where traffic counts
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "is_nonzero"}


class Counts(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.computes = self.reads = 0
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in READS or by_mask:
            self.reads += 1
        elif name not in FREE:
            self.computes += 1
            read = args[1:] if name == "copy_" else args  # what is only written to is not read
            tensors = [x for x in (*read, result) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.nbytes for x in tensors if x.numel() >= LARGE)
        return result


def measured(max_steps, f, x0, stepping="joint", **options):
    with torch.no_grad(), Counts() as counts:
        sol = odeint(f, x0, [0.0, 100.0], max_steps=max_steps, stepping=stepping, throw=False, **options)
    return counts, sol.stats.n_steps.max().item()


def per_attempt(f, x0, **options):
    """The difference of two solves, so that start and end do not count."""
    few, n_few = measured(5, f, x0, **options)
    many, n_many = measured(25, f, x0, **options)
    steps = n_many - n_few
    assert steps == 20
    return [(getattr(many, name) - getattr(few, name)) / steps for name in ("computes", "reads", "bytes")]


def one_operation(t, x):
    return -x


@pytest.mark.parametrize("shape", [(7,), (256, 2)])
def test_a_joint_step_of_dopri5(shape):
    computes, reads, _ = per_attempt(one_operation, torch.ones(shape), solver="dopri5")
    assert reads == 1
    assert computes <= 40
    assert computes >= 6 + 6 + 6  # evaluations, stages and their gathering: less would be a wrong count


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_step_reads_once(stepping, host_reads):
    def count(max_steps):
        host_reads.clear()
        with torch.no_grad():
            odeint(one_operation, torch.ones(7, 2), [0.0, 100.0], max_steps=max_steps, stepping=stepping, throw=False)
        return len(host_reads)

    assert count(25) - count(5) == 20


def test_traffic_of_a_large_state():
    """Per stage every slope that it uses and x once, and one write; the evaluations; one pass for the error."""
    n = 10**5
    _, _, traffic = per_attempt(one_operation, torch.ones(n), solver="dopri5")
    element = 4 * n
    rows = Dopri5().tableau.numbers.rows
    used = [sum(weight != 0 for weight in row) for row in rows]
    stages = sum(count + 2 for count in used[1:7])  # slopes, x and the new state
    evaluations = 6 * 2
    error = used[8] + 1 + 3
    assert 1 <= traffic / element / (stages + evaluations + error) <= 1.5


@pytest.fixture
def only_what_is_new():
    """The collector looks at nothing that there was before: a look at all of torch takes a while."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_what_is_new")
def test_memory_does_not_grow_with_the_number_of_steps():
    """Without outputs in between nothing of a step is kept."""
    alive = {}
    for n in (200, 100, 400):  # the first is for what a method keeps from one solve to the next
        seen = []

        def field(t, x, seen=seen):
            return torch.cos(30 * t) * 30 + 0 * x

        def watch(t, x, dt, seen=seen):
            if len(seen) % 50 == 0:
                gc.collect()
                seen.append(sum(isinstance(o, torch.Tensor) for o in gc.get_objects()))
            else:
                seen.append(seen[-1])

        with torch.no_grad():
            odeint(field, torch.zeros(2), [0.0, 100.0], max_steps=n, throw=False, callbacks=Callbacks(on_step=watch))
        alive[n] = max(seen)
    assert alive[400] <= alive[100] + 2
