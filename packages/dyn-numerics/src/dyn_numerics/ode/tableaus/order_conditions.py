"""Order conditions of Runge-Kutta methods, one for every rooted tree, in whatever numbers the coefficients are.

A method with matrix `a` and weights `b` has order p when, for every rooted tree with at most p nodes,
`sum_i b_i Phi_i(tree) = 1 / gamma(tree)`. A continuous extension with weights `b_i(theta)` has order p when the sum
equals `theta^order(tree) / gamma(tree)` instead, so that its residual is a polynomial in theta. A Rosenbrock method has
the same conditions, but that another matrix, `only`, belongs to nodes with one child: stages plus multiples of the Jacobian.

References:
    - E. Hairer, S. P. Norsett, G. Wanner: Solving Ordinary Differential Equations I, 2nd ed., section II.2
      (Theorem 2.13) and section II.6 (Theorem 6.1, continuous extensions).
    - E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., section IV.7 (Theorem 7.4, Rosenbrock
      methods).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import prod
from typing import Any, Generic, TypeVar

__all__ = ["Tree", "dense_residuals", "density", "node_count", "residuals", "rooted_trees", "tree_name"]

Tree = tuple[Any, ...]
"""A rooted tree: the sorted tuple of the subtrees that hang from its root."""

Number = TypeVar("Number", Fraction, Decimal, float)
"""What the coefficients are: exact, decimal or rounded."""

Residuals = Iterator[tuple[Tree, Number]]

SparseRows = list[list[tuple[int, Number]]]


@cache
def rooted_trees(nodes: int) -> tuple[Tree, ...]:
    """Lists the rooted trees with exactly that many nodes (1, 1, 2, 4, 9, 20, 48, 115 for 1 to 8 nodes)."""
    return tuple(sorted(set(_forests(nodes - 1, nodes - 1))))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    """Yields the multisets of rooted trees with `nodes` nodes in all, none with more than `largest`."""
    if nodes == 0:
        yield ()
    for size in range(min(nodes, largest), 0, -1):
        for copies in range(nodes // size, 0, -1):
            for rest in _forests(nodes - copies * size, size - 1):
                for chosen in combinations_with_replacement(rooted_trees(size), copies):
                    yield tuple(sorted(chosen + rest))


def node_count(tree: Tree) -> int:
    """Number of nodes of the tree, which is the order of its condition."""
    return 1 + sum(node_count(child) for child in tree)


def density(tree: Tree) -> int:
    """Density gamma of the tree: the product over all nodes of the size of the subtree at that node."""
    return node_count(tree) * prod(density(child) for child in tree)


def tree_name(tree: Tree) -> str:
    """Writes the tree in bracket notation: `τ` is a single node, `[τ,[τ]]` a root with two children."""
    return "[" + ",".join(tree_name(child) for child in tree) + "]" if tree else "τ"


class _ElementaryWeights(Generic[Number]):
    """`Phi_i(tree)` for every stage i; what was found for a tree is kept for those that it is part of.

    Args:
        a: Stage coefficients, row i with its entries j (at most as many as there are stages).
        one: The number 1, of the kind that the coefficients are.
        only: The coefficients at nodes with one child, if they are others.
    """

    def __init__(
        self, a: Sequence[Sequence[Number]], one: Number, only: Sequence[Sequence[Number]] | None = None
    ) -> None:
        self._rows: SparseRows[Number] = _sparse(a)
        self._only_rows: SparseRows[Number] = self._rows if only is None else _sparse(only)
        self._one: Number = one
        self._zero: Number = one - one
        self._known: dict[Tree, list[Number]] = {}

    def __call__(self, tree: Tree) -> list[Number]:
        if tree not in self._known:
            weights = [self._one] * len(self._rows)
            rows = self._only_rows if len(tree) == 1 else self._rows
            for child in tree:
                inner = self(child)
                for i, row in enumerate(rows):
                    weights[i] *= sum((w * inner[j] for j, w in row), self._zero)
            self._known[tree] = weights
        return self._known[tree]


def _sparse(rows: Sequence[Sequence[Number]]) -> SparseRows[Number]:
    return [[(j, w) for j, w in enumerate(row) if w != 0] for row in rows]


def residuals(
    a: Sequence[Sequence[Number]], b: Sequence[Number], order: int, only: Sequence[Sequence[Number]] | None = None
) -> Residuals[Number]:
    """Yields every rooted tree with at most `order` nodes and the residual of its condition.

    Args:
        a: Stage coefficients, row i with its entries j (at most as many as there are stages).
        b: Weights, one for each stage; those that are missing at the end are zero.
        order: Largest number of nodes.
        only: Coefficients at nodes with one child, as `a`, if they are others.

    Yields:
        The tree and `sum_i b_i Phi_i(tree) - 1 / gamma(tree)`.
    """
    one = type(b[0])(1)
    weights = _ElementaryWeights(a, one, only)
    for nodes in range(1, order + 1):
        for tree in rooted_trees(nodes):
            total = sum((w * phi for w, phi in zip(b, weights(tree), strict=False)), one - one)
            yield tree, total - one / density(tree)


def dense_residuals(
    a: Sequence[Sequence[Number]],
    dense: Sequence[Sequence[Number]],
    order: int,
    only: Sequence[Sequence[Number]] | None = None,
) -> Residuals[Number]:
    """Yields, for every tree with at most `order` nodes, the largest residual of its continuous condition.

    Args:
        a: Stage coefficients, row i with its entries j.
        dense: For each stage the coefficients of `b_i(theta)` at theta, theta^2, ...
        order: Largest number of nodes.
        only: As in `residuals`.

    Yields:
        The tree and the coefficient, largest in magnitude, of
        `sum_i b_i(theta) Phi_i(tree) - theta^nodes / gamma(tree)` as a polynomial in theta.
    """
    one = type(dense[0][0])(1)
    weights = _ElementaryWeights(a, one, only)
    for nodes in range(1, order + 1):
        for tree in rooted_trees(nodes):
            errors = []
            for power, column in enumerate(zip(*dense, strict=True), start=1):
                total = sum((w * phi for w, phi in zip(column, weights(tree), strict=True)), one - one)
                errors.append(total - one / density(tree) if power == nodes else total)
            yield tree, max(errors, key=abs)
