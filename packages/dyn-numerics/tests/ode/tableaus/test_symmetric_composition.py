"""Compositions check themselves, and are what was published."""

from fractions import Fraction

import pytest

from dyn_numerics.ode.tableaus.splitting import VERLET, YOSHIDA4
from dyn_numerics.ode.tableaus.symmetric_composition import SymmetricComposition


def composition(**changes):
    settings = {"name": "mine", "order": 2, "lengths": [1], "outer": "a", "source": "here"}
    return SymmetricComposition(**{**settings, **changes})


def test_verlet_steps_the_force_by_halves():
    half = Fraction(1, 2)
    assert (VERLET.outer, VERLET.inner) == ("b", "a")
    assert (VERLET.outer_lengths, VERLET.outer_nodes) == ((half, half), (0, 1))
    assert (VERLET.lengths, VERLET.inner_nodes) == ((1,), (half,))


def test_yoshida_is_that_of_the_publication():
    """Yoshida (1990), equation (2.11): 1.3512 and -1.7024; the nodes are sums of these."""
    root = 2 ** (1 / 3)
    ends, middle = 1 / (2 - root), -root / (2 - root)
    assert [float(length) for length in YOSHIDA4.lengths] == pytest.approx([ends, middle, ends], abs=1e-15)
    assert [float(x) for x in YOSHIDA4.outer_lengths] == pytest.approx(
        [ends / 2, (ends + middle) / 2, (ends + middle) / 2, ends / 2], abs=1e-15
    )
    assert [float(node) for node in YOSHIDA4.outer_nodes] == pytest.approx([0, ends, 1 - ends, 1], abs=1e-15)
    assert [float(node) for node in YOSHIDA4.inner_nodes] == pytest.approx([ends / 2, 0.5, 1 - ends / 2], abs=1e-15)
    assert abs(sum(length**3 for length in YOSHIDA4.lengths)) < Fraction(1, 10**45)


def test_the_force_of_a_named_method_stays_within_the_step():
    for method in (VERLET, YOSHIDA4):
        nodes = method.outer_nodes if method.outer == "b" else method.inner_nodes
        assert min(nodes) >= 0
        assert max(nodes) <= 1


def test_longer_ones_of_order_4_are_accepted():
    """Suzuki's five steps."""
    ends = 1 / (4 - 4 ** (1 / 3))
    suzuki = composition(order=4, lengths=[ends, ends, 1 - 4 * ends, ends, ends])
    assert float(suzuki.outer_lengths[2]) == pytest.approx((1 - 3 * ends) / 2, abs=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [Fraction(1, 2), Fraction(1, 3)]}, r"add up to 1 has the residual -1\.667e-01, expected 0;"),
        ({"lengths": [Fraction(1, 3), Fraction(2, 3)]}, r"read the same backwards has the residual 3\.333e-01, exp"),
        ({"order": 4}, r"powers 3 of the lengths add up to 0 has the residual 1\.000e\+00, expected 0; check the "),
        ({"order": 4, "lengths": [1.3512, -1.7024, 1.3512]}, r"powers 3 of .* 4.628e-05, expected at most 1e-14;"),
        ({"lengths": []}, "add up to 1"),
        ({"lengths": [0.5, 0.5 + 1e-13]}, "add up to 1"),
        ({"lengths": [float("nan")]}, "got the length nan, expected a finite number"),
        ({"lengths": ["1"]}, "got the length '1', expected a finite number"),
        ({"outer": "c"}, "outer is 'c', expected one of 'a', 'b'"),
        ({"order": 3}, "order is 3, expected one of 2, 4"),
    ],
)
def test_a_wrong_one_is_refused(changes, message):
    with pytest.raises(ValueError, match=rf"composition 'mine': .*{message}"):
        composition(**changes)
