"""Rooted trees and the residuals of their conditions, against tables in the literature and quadrature by hand."""

from fractions import Fraction

import pytest

from dyn_numerics.ode.tableaus.order_conditions import (
    dense_residuals,
    density,
    node_count,
    residuals,
    rooted_trees,
    tree_name,
)

TAU = ()
HALF = Fraction(1, 2)
MIDPOINT_A, MIDPOINT_B = [[], [HALF]], [Fraction(0), Fraction(1)]


@pytest.mark.parametrize(("nodes", "count"), list(enumerate([1, 1, 2, 4, 9, 20, 48, 115], start=1)))
def test_number_of_rooted_trees(nodes, count):
    trees = rooted_trees(nodes)
    assert len(trees) == len(set(trees)) == count
    assert all(node_count(tree) == nodes for tree in trees)


@pytest.mark.parametrize(
    ("tree", "name", "gamma"),
    [  # Hairer, Norsett, Wanner: Solving ODEs I, table 2.1 of section II.2
        (TAU, "τ", 1),
        ((TAU,), "[τ]", 2),
        ((TAU, TAU), "[τ,τ]", 3),
        (((TAU,),), "[[τ]]", 6),
        ((TAU, TAU, TAU), "[τ,τ,τ]", 4),
        ((TAU, (TAU,)), "[τ,[τ]]", 8),
        (((TAU, TAU),), "[[τ,τ]]", 12),
        ((((TAU,),),), "[[[τ]]]", 24),
        (((TAU,), (TAU,)), "[[τ],[τ]]", 20),
        (((((TAU,),),),), "[[[[τ]]]]", 120),
    ],
)
def test_known_trees(tree, name, gamma):
    assert tree in rooted_trees(node_count(tree))
    assert tree_name(tree) == name
    assert density(tree) == gamma


def test_every_residual_of_a_table_of_order_two():
    found = dict(residuals(MIDPOINT_A, MIDPOINT_B, order=3))
    assert found == {
        TAU: 0,
        (TAU,): 0,
        (TAU, TAU): Fraction(1, 4) - Fraction(1, 3),  # sum b c^2 - 1/3
        ((TAU,),): -Fraction(1, 6),  # sum b a c - 1/6
    }


def test_residuals_are_linear_in_the_weights():
    found = dict(residuals(MIDPOINT_A, [Fraction(1, 10), Fraction(1)], order=2))
    assert found == {TAU: Fraction(1, 10), (TAU,): 0}


def test_dense_residual_is_the_largest_coefficient_of_the_polynomial():
    # b_1 = theta - theta^2, b_2 = theta^2: sum b = theta, sum b c = theta^2 / 2
    exact = [[Fraction(1), Fraction(-1)], [Fraction(0), Fraction(1)]]
    assert dict(dense_residuals(MIDPOINT_A, exact, order=2)) == {TAU: 0, (TAU,): 0}
    off = [[Fraction(1), Fraction(-1)], [Fraction(1, 8), Fraction(1)]]
    assert dict(dense_residuals(MIDPOINT_A, off, order=2)) == {TAU: Fraction(1, 8), (TAU,): Fraction(1, 16)}
