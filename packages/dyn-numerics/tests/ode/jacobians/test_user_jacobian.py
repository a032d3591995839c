"""The user's `jac`: its shapes, its arguments, and what is refused."""

import pytest
import torch

from dyn_numerics import BandedJacobian, BlockDiagonalJacobian, DenseJacobian, FieldJacobian, PerSample
from dyn_numerics.ode.jacobians.by_argument import field_jacobian

D = torch.float64
T = torch.tensor(0.5, dtype=D)


def cubic(t, x, rate, *rest):
    """A field on states of any shape, `rate` the one of every sample."""
    return -rate * t * x**3 + x.flip(-1)


class Cubic:
    """Its Jacobian for states `[*lead, 2, 3]`, counting calls and looking at what it is handed."""

    def __init__(self, lead):
        self.calls, self.lead = 0, lead

    def __call__(self, t, x, rate):
        self.calls += 1
        assert x.shape == (*self.lead, 2, 3)
        assert t.shape == (*self.lead, *([1, 1] if self.lead else []))
        own = torch.diag_embed((-3 * rate * t * x**2).flatten(-2))
        flip = torch.block_diag(torch.eye(3, dtype=D).flip(0), torch.eye(3, dtype=D).flip(0))
        return (own + flip).reshape(*self.lead, 2, 3, 2, 3)


@pytest.mark.parametrize("lead", [(), (5,)])
@pytest.mark.parametrize("with_rate", [False, True])
def test_of_a_state_of_two_dimensions(lead, with_rate, random, context):
    x, t = random(*lead, 2, 3), random(*lead, seed=1)
    rate = random(5, 1, 1, seed=2) if lead else torch.tensor(2.0, dtype=D)
    args = (PerSample(rate) if lead else rate,)
    jac, calls = Cubic(lead), []

    def f(t, x):
        calls.append(t)
        state = x.reshape(*lead, 2, 3)
        return cubic(t[..., None, None], state, rate).reshape(x.shape)

    jacobian = DenseJacobian(jac).on(context(x, bool(lead), args))
    flat = x.reshape(*lead, 6)
    near = jacobian.linearise(f, t, flat, with_rate)
    assert (len(calls), jac.calls) == (1, 1)
    expected = DenseJacobian().linearise(f, t, flat, True)
    torch.testing.assert_close(near.jacobian, expected.jacobian, rtol=0, atol=1e-14)
    torch.testing.assert_close(near.slope, expected.slope, rtol=0, atol=1e-14)
    if with_rate:
        torch.testing.assert_close(near.rate, expected.rate, rtol=0, atol=1e-14)


def test_samples_that_leave_take_their_arguments_along(random, context):
    x, rate = random(5, 2, 3), random(5, 1, 1, seed=2)
    samples = torch.tensor([3, 1])
    whole = context(x, True, (PerSample(rate),))
    t = torch.full((5,), 0.5, dtype=D)
    some = DenseJacobian(Cubic((2,))).on(whole).on(whole.take(samples))
    found = some.linearise(lambda t, x: x, t[samples], x[samples].flatten(1)).jacobian
    everything = DenseJacobian(Cubic((5,))).on(whole).linearise(lambda t, x: x, t, x.flatten(1)).jacobian
    assert torch.equal(found, everything[samples])


def test_the_original_knows_of_no_solve(random, context):
    jacobian = DenseJacobian(lambda t, x: torch.eye(2, dtype=D))
    assert jacobian.structured
    assert jacobian.on(context(random(2))) is not jacobian
    with pytest.raises(ValueError, match=r"jac: got one outside of a solve, .* try on\(context\) first"):
        jacobian.linearise(lambda t, x: x, T, random(2))
    plain = DenseJacobian()
    assert not plain.structured
    assert plain.on(context(random(2))) is plain


@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_band_as_scipy_has_it(lead, neighbours, random, context):
    x, t = random(*lead, 9), random(*lead, seed=1)

    def jac(t, x):
        hand = neighbours.jacobian(t[..., 0] if lead else t, x)
        band = torch.full((*lead, 4, 9), torch.nan, dtype=D)
        for i in range(9):
            for j in range(max(0, i - 1), min(9, i + 3)):
                band[..., 2 + i - j, j] = hand[..., i, j]
        return band

    jacobian = BandedJacobian(1, 2, jac).on(context(x, bool(lead)))
    found = jacobian.linearise(neighbours, t, x).jacobian
    expected = BandedJacobian(1, 2).linearise(neighbours, t, x).jacobian
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_blocks(lead, random, context):
    x, t = random(*lead, 4, 2), random(*lead, seed=1)
    f = lambda t, x: (x.reshape(*lead, 4, 2).flip(-1) ** 2).reshape(x.shape)  # noqa: E731
    jac = lambda t, x: torch.diag_embed(2 * x.flip(-1)).flip(-1)  # noqa: E731
    flat = x.reshape(*lead, 8)
    found = BlockDiagonalJacobian(2, jac, check=True).on(context(x, bool(lead))).linearise(f, t, flat).jacobian
    torch.testing.assert_close(found, BlockDiagonalJacobian(2).linearise(f, t, flat).jacobian, rtol=0, atol=1e-14)


def test_half_precision_is_handed_its_own(random, context):
    seen = []

    def jac(t, x):
        seen.extend([t.dtype, x.dtype])
        return torch.eye(3, dtype=torch.float16)

    state = random(3).half()
    jacobian = DenseJacobian(jac).on(context(state))
    found = jacobian.linearise(lambda t, x: x, torch.tensor(0.0), state.float()).jacobian
    assert seen == [torch.float16, torch.float16]
    assert torch.equal(found, torch.eye(3))


@pytest.mark.parametrize(
    ("jacobian", "error", "message"),
    [
        (
            DenseJacobian(lambda t, x: x),
            ValueError,
            r"jac: returned shape \[4\], expected \[4, 4\], derivatives of outputs",
        ),
        (DenseJacobian(lambda t, x: 1.0), TypeError, r"jac: returned a float, expected a tensor \[4, 4\]"),
        (
            DenseJacobian(lambda t, x: torch.eye(4)),
            TypeError,
            r"jac: returned dtype torch.float32, expected torch.float64 as the state; cast in jac",
        ),
        (
            DenseJacobian(lambda t, x: torch.eye(4, dtype=D, device="meta")),
            ValueError,
            r"jac: returned device meta, expected cpu as the state",
        ),
        (
            BandedJacobian(1, 0, lambda t, x: x),
            ValueError,
            r"jac: returned shape \[4\], expected \[2, 4\], diagonals from",
        ),
        (
            BlockDiagonalJacobian(2, lambda t, x: x),
            ValueError,
            r"jac: returned shape \[4\], expected \[2, 2, 2\], deriv",
        ),
        (BlockDiagonalJacobian(3), ValueError, r"block_size: got 3, expected a divisor of the state's 4 elements"),
        (
            DenseJacobian(lambda x: x),
            TypeError,
            r"jac: got a Jacobian with the signature \(x\), expected one that takes \(t",
        ),
        (
            DenseJacobian(lambda t, x: x.mul_(2)),
            ValueError,
            r"jac: changed the state x in place, expected it to be left alone; try x = x.clone\(\) first",
        ),
    ],
)
def test_what_is_refused(jacobian, error, message, random, context):
    with pytest.raises(error, match=message):
        jacobian.on(context(random(4))).linearise(lambda t, x: x, T, random(4))


def test_a_pytree_has_no_matrix_of_the_users(context):
    state = (torch.ones(2), torch.ones(3))
    with pytest.raises(
        TypeError, match="jac: got one with an x0 that is a pytree, expected a single tensor; leave jac out"
    ):
        DenseJacobian(lambda t, x: x).on(context(state))
    assert DenseJacobian().on(context(state)).linearise(lambda t, x: x, T, torch.ones(5, dtype=D)).jacobian.shape == (
        5,
        5,
    )


def test_arguments():
    for wrong in (3, DenseJacobian, "dense"):
        with pytest.raises(
            TypeError, match=r"jac: got .*, expected a function jac\(t, x, \*args\), a FieldJacobian or None"
        ):
            field_jacobian(wrong)
    with pytest.raises(ValueError, match="lower: got -1, expected a number of diagonals, 0 or more"):
        BandedJacobian(-1, 1)
    with pytest.raises(ValueError, match=r"upper: got 1\.0, expected a number of diagonals"):
        BandedJacobian(1, 1.0)
    with pytest.raises(ValueError, match="block_size: got 0, expected a positive integer"):
        BlockDiagonalJacobian(0)


def test_what_an_argument_stands_for():
    assert isinstance(field_jacobian(None), DenseJacobian)
    jac = torch.nn.Linear(1, 1)
    assert field_jacobian(jac).jac is jac
    banded = BandedJacobian(1, 2, check=True)
    assert field_jacobian(banded) is banded
    assert repr(banded) == "BandedJacobian(lower=1, upper=2, check=True)"
    assert repr(BlockDiagonalJacobian(2, len)) == "BlockDiagonalJacobian(block_size=2, jac=len)"
    assert isinstance(banded, FieldJacobian)
