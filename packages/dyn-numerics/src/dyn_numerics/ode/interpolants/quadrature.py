"""Quadrature by the polynomial through given nodes, such as times that a solve has passed."""

from __future__ import annotations

from collections.abc import Sequence

from dyn_numerics.ode.scalar import Scalar

__all__ = ["quadrature"]


def quadrature(nodes: Sequence[Scalar]) -> tuple[list[Scalar], Scalar]:
    """Weights that integrate over [0, 1] the polynomial with given values at some nodes.

    With `k` nodes the integral of `g` is `sum_j weights[j] g(nodes[j]) + defect g^(k)(s) / k!`, exact for polynomials of
    degree below `k`. Equally spaced nodes give the coefficients of Adams.

    Args:
        nodes: Distinct nodes, inside of [0, 1] or not: host numbers, or tensors of one shape.

    Returns:
        The weights, one for each node, and the defect: the integral of the product of all `s - nodes[j]`.

    Example:
        >>> weights, defect = quadrature([0.0, -1.0])  # Adams and Bashforth's method of order 2
        >>> [round(w, 3) for w in weights], round(defect, 4)
        ([1.5, -0.5], 0.8333)

    References:
        A. Bjorck, V. Pereyra: Solution of Vandermonde systems of equations (1970); G. H. Golub, C. F. Van Loan: Matrix
        Computations, 4th ed., algorithm 4.6.2.
    """
    count = len(nodes)
    w: list[Scalar] = [1.0 / (power + 1) for power in range(count + 1)]  # integrals of 1, s, s^2, ...
    for i, node in enumerate(nodes):
        for j in range(count, i, -1):
            w[j] = w[j] - node * w[j - 1]
    defect = w.pop()  # w[j] is the integral of the product of all s - nodes[i], i < j
    for i in range(count - 2, -1, -1):
        for j in range(i + 1, count):
            w[j] = w[j] / (nodes[j] - nodes[j - i - 1])
        for j in range(i, count - 1):
            w[j] = w[j] - w[j + 1]
    return w, defect
