"""Pytrees of tensors as one vector and back."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from dyn_numerics.pytree_state import StateLayout

Pair = namedtuple("Pair", ["position", "momentum"])


def leaf(*shape, dtype=torch.float64):
    count = torch.Size(shape).numel()
    return torch.arange(1, count + 1, dtype=torch.float64).to(dtype).reshape(shape)


STATES = {
    "0-d tensor": torch.tensor(2.0, dtype=torch.float64),
    "tensor": leaf(2, 3, 4),
    "transposed tensor": leaf(3, 2).t(),
    "empty batch": leaf(0, 3),
    "tuple": (leaf(2), leaf(3, 2)),
    "tuple of one": (leaf(2),),
    "list": [leaf(2), torch.tensor(5.0).double()],
    "dictionary": {"q": leaf(2, 2), "p": leaf(3)},
    "ordered dictionary": OrderedDict(b=leaf(1), a=leaf(2)),
    "named tuple": Pair(leaf(2), leaf(2)),
    "nested": {"net": (leaf(2), [leaf(1), {"deep": leaf(2, 1)}]), "t": leaf(1)},
    "with an empty leaf": (leaf(2), leaf(0)),
    "dtypes": (leaf(2, dtype=torch.float16), leaf(2), leaf(3, dtype=torch.float32)),
    "real and complex": {"z": leaf(2, dtype=torch.complex64), "x": leaf(3)},
}


def leaves(state):
    return torch.utils._pytree.tree_leaves(state)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_round_trip(state):
    layout = StateLayout(state, "x0")
    vector = layout.flatten(state)
    assert vector.shape == (layout.size,)
    assert vector.dtype == layout.dtype
    again = layout.unflatten(vector)
    assert type(again) is type(state)
    torch.testing.assert_close(again, state, rtol=0, atol=0)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_leading_dimensions_go_to_every_leaf(state):
    layout = StateLayout(state, "x0")
    vector = layout.flatten(state)
    stacked = layout.unflatten(torch.stack([vector, 2 * vector]).unsqueeze(0))  # [1, 2, N]
    for got, expected in zip(leaves(stacked), leaves(state), strict=True):
        assert got.shape == (1, 2, *expected.shape)
        torch.testing.assert_close(got[0, 1], 2 * expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        ([torch.float32, torch.float64], torch.float64),
        ([torch.float16, torch.bfloat16], torch.float32),
        ([torch.complex64, torch.float64], torch.complex128),
        ([torch.float16, torch.float16], torch.float16),
    ],
)
def test_the_vector_is_in_the_common_dtype(dtypes, common):
    assert StateLayout([torch.ones(1, dtype=dtype) for dtype in dtypes], "x0").dtype == common


def test_a_bare_tensor_is_viewed():
    x = leaf(2, 3)
    assert StateLayout(x, "x0").flatten(x).data_ptr() == x.data_ptr()


def test_dictionaries_are_matched_by_key():
    layout = StateLayout({"q": leaf(2), "p": 10 * leaf(1)}, "x0")
    swapped = {"p": 10 * leaf(1), "q": leaf(2)}
    layout.check("f", swapped)
    assert layout.flatten(swapped).tolist() == [1, 2, 10]


def test_gradients_pass():
    q, p = leaf(2).requires_grad_(), leaf(2, dtype=torch.float32).requires_grad_()
    layout = StateLayout((q, p), "x0")
    a, b = layout.unflatten(layout.flatten((q, p)) * 3)
    (a.sum() + 2 * b.sum()).backward()
    assert q.grad.tolist() == [3, 3]
    assert p.grad.tolist() == [6, 6]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ((), ValueError, "x0: got an empty pytree, expected at least one tensor"),
        ({}, ValueError, "x0: got an empty pytree"),
        (1.0, TypeError, "x0: got a float, expected a tensor or a pytree of tensors"),
        (None, TypeError, "x0: got a NoneType, expected a tensor"),
        ([leaf(1), 2.0], TypeError, "x0: got a float, expected a tensor"),
        (torch.ones(2, dtype=torch.int64), TypeError, r"x0: got dtype torch\.int64, expected a floating or complex"),
        (torch.ones(2, dtype=torch.bool), TypeError, r"x0: got dtype torch\.bool, expected a floating or complex"),
        (torch.ones(2).to(torch.float8_e4m3fn), TypeError, r"x0: got dtype torch\.float8_e4m3fn, expected a floating"),
        (
            (leaf(1), torch.ones(1, device="meta")),
            ValueError,
            r"x0: got leaves on \['cpu', 'meta'\], expected one device",
        ),
    ],
)
def test_what_is_no_state(state, error, message):
    with pytest.raises(error, match=message):
        StateLayout(state, "x0")


@pytest.mark.parametrize(
    ("state", "returned", "error", "message"),
    [
        (leaf(2), leaf(3), ValueError, r"f: returned shape \[3\], expected \[2\] as the state"),
        (leaf(2, 1), leaf(2), ValueError, r"f: returned shape \[2\], expected \[2, 1\]"),
        (
            leaf(2),
            leaf(2).float(),
            TypeError,
            r"f: returned dtype torch\.float32, expected torch\.float64 as the state; cast",
        ),
        (leaf(2), leaf(2).to("meta"), ValueError, "f: returned device meta, expected cpu as the state"),
        (leaf(2), None, TypeError, "f: returned a NoneType, expected a tensor"),
        (leaf(2), 1.0, TypeError, "f: returned a float, expected a tensor"),
        (leaf(2), (leaf(2),), TypeError, "f: returned a tuple, expected a tensor"),
        ((leaf(2), leaf(1)), leaf(3), TypeError, "f: returned a tensor, expected TreeSpec.*tuple"),
        ((leaf(2), leaf(1)), (leaf(2),), TypeError, "f: returned TreeSpec.*tuple.*, expected TreeSpec.*tuple"),
        ((leaf(2), leaf(1)), [leaf(2), leaf(1)], TypeError, "f: returned TreeSpec.*list.*, expected TreeSpec.*tuple"),
        ({"q": leaf(1)}, {"p": leaf(1)}, TypeError, "f: returned .*'p'.*, expected .*'q'"),
        ((leaf(2), leaf(1)), (leaf(2), leaf(2)), ValueError, r"f: returned shape \[2\], expected \[1\]"),
    ],
)
def test_what_is_another_state(state, returned, error, message):
    layout = StateLayout(state, "x0")
    layout.check("f", state)
    with pytest.raises(error, match=message):
        layout.check("f", returned)
