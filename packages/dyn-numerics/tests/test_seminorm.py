"""Norms that look at parts of a state."""

import math
from collections import namedtuple

import pytest
import torch

from dyn_numerics import PIDController, Seminorm, Status, odeint
from dyn_numerics.pytree_state import StateLayout

Pair = namedtuple("Pair", ["x", "y"])


def leaf(value, size):
    return torch.full((size,), float(value))


@pytest.mark.parametrize(
    ("state", "parts", "expected"),
    [
        ({"a": leaf(1, 2), "b": leaf(2, 3)}, ("b",), [2] * 3),
        ({"a": leaf(1, 2), "b": leaf(2, 3)}, ("b", "a"), [1] * 2 + [2] * 3),
        ((leaf(1, 2), leaf(2, 3), leaf(3, 1)), (0, -1), [1, 1, 3]),
        (Pair(leaf(1, 2), leaf(2, 3)), ("y",), [2] * 3),
        ({"z": {"u": leaf(1, 1), "v": leaf(2, 4)}, "w": leaf(3, 2)}, (("z", "v"),), [2] * 4),
        ({"z": [leaf(1, 1), leaf(2, 4)], "w": leaf(3, 2)}, ("z", ("z", 0)), [1] + [2] * 4),
    ],
)
def test_where_the_parts_lie(state, parts, expected):
    layout = StateLayout(state, "x0")
    flat = layout.flatten(state)
    assert torch.cat([flat[columns] for columns in Seminorm(*parts).columns(layout)]).tolist() == expected


def field(t, x):
    return {"fast": 500 * torch.cos(500 * t).unsqueeze(-1) + 0 * x["fast"], "slow": -x["slow"]}


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_the_steps_are_those_of_the_part_alone(stepping):
    """With the part alone as the state, and its own norm, the steps are the same."""
    lead = (3,) if stepping == "per_sample" else ()
    x0 = {"fast": torch.zeros(*lead, 2, dtype=torch.float64), "slow": torch.ones(*lead, 4, dtype=torch.float64)}
    if lead:
        x0["slow"] = x0["slow"] * torch.tensor([[1.0], [3.0], [0.1]], dtype=torch.float64)

    def solved(norm):
        return odeint(
            field, x0, [0.0, 1.0], stepping=stepping,
            rtol=1e-6, atol=1e-9, controller=PIDController(norm=norm),
        ).stats.n_steps  # fmt: skip

    alone = odeint(
        lambda t, x: -x, x0["slow"], [0.0, 1.0], stepping=stepping, rtol=1e-6, atol=1e-9
    ).stats.n_steps  # fmt: skip
    assert torch.equal(solved(Seminorm("slow")), alone)
    assert (solved(Seminorm("fast")) > 10 * alone).all()
    torch.testing.assert_close(solved(Seminorm("fast", "slow")), solved(None), rtol=0, atol=0)


def test_what_is_left_out_must_be_finite():
    def bursts(t, x):
        return {"kept": -x["kept"], "out": torch.where(t > 0.5, math.inf, 0 * x["out"])}

    x0 = {"kept": torch.ones(1), "out": torch.zeros(1)}
    sol = odeint(bursts, x0, [0.0, 1.0], controller=PIDController(norm=Seminorm("kept")), throw=False)
    assert sol.status is Status.NON_FINITE
    assert sol.t_reached.item() == pytest.approx(0.5, abs=1e-6)


def test_unknown_parts_are_refused_by_name():
    x0 = {"a": torch.ones(2), "b": torch.ones(3)}
    with pytest.raises(ValueError, match=r"norm: got Seminorm\('c'\) for the state \{'a': 0, 'b': 1\}.* no part 'c'"):
        odeint(lambda t, x: x, x0, [0.0, 1.0], controller=PIDController(norm=Seminorm("c")))
    with pytest.raises(ValueError, match=r"norm: got Seminorm\(0\) for a tensor which has no part 0"):
        odeint(lambda t, x: x, torch.ones(2), [0.0, 1.0], controller=PIDController(norm=Seminorm(0)))
    with pytest.raises(ValueError, match=r"norm: got Seminorm\(5\)"):
        odeint(lambda t, x: x, (torch.ones(2),), [0.0, 1.0], controller=PIDController(norm=Seminorm(5)))
    with pytest.raises(ValueError, match="parts: got none"):
        Seminorm()
    with pytest.raises(
        TypeError, match=r"parts: got \['a', 'b'\], expected keys.* name several as Seminorm\('a', 'b'\)"
    ):
        Seminorm(["a", "b"])


def test_equal_parts_make_equal_norms():
    assert Seminorm("a", 0) == Seminorm("a", 0)
    assert hash(Seminorm("a", 0)) == hash(Seminorm("a", 0))
    assert Seminorm("a") != Seminorm("b")
    assert repr(Seminorm("a", ("b", 0))) == "Seminorm('a', ('b', 0))"
