"""Two Runge-Kutta methods that step the parts of a field together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import product
from math import prod

from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.tableaus.order_conditions import Tree, density, node_count, rooted_trees, tree_name

__all__ = ["AdditiveTableau"]

TOLERANCE = Decimal("1e-14")
DIGITS = Context(prec=50)

Vector = list[Decimal]


@dataclass(frozen=True)
class AdditiveTableau:
    """An implicit and an explicit Runge-Kutta method for the two terms of a field.

    Both have the same nodes, weights and embedded weights. Building a pair checks its coupling: the order condition of
    every rooted tree whose nodes each belong to one of the methods, up to the order, and up to the embedded order with
    the embedded weights.

    Args:
        implicit: The method of the stiff term.
        explicit: That of the other.

    Raises:
        ValueError: If they do not go together, or a condition fails.

    Attributes:
        name: Name of the implicit one.
        order: Order of both.
        error_order: Order of their error estimate, None without one.

    Example:
        >>> from dyn_numerics.ode.tableaus.additive import KENCARP4
        >>> KENCARP4.order, KENCARP4.implicit.stiffly_accurate, KENCARP4.explicit.explicit
        (4, True, True)

    References:
        C. A. Kennedy, M. H. Carpenter: Additive Runge-Kutta schemes for convection-diffusion-reaction equations, Applied
        Numerical Mathematics 44 (2003), 139-181, section 2.
    """

    implicit: ButcherTableau
    explicit: ButcherTableau

    def __post_init__(self) -> None:
        a, b = self.implicit, self.explicit
        if not b.explicit:
            raise ValueError(f"explicit: got {b.name!r}, which has implicit stages, expected an explicit table")
        if a.order != b.order or a.embedded_order != b.embedded_order:
            raise ValueError(f"explicit: got {b.name!r} of other orders than {a.name!r}, expected the same")
        for what, left, right in (("b", a.b, b.b), ("b_hat", a.b_hat or (), b.b_hat or ()), ("c", a.c, b.c)):
            gap = max((abs(x - y) for x, y in zip(left, right, strict=True)), default=Fraction(0))
            if gap > Fraction(TOLERANCE):
                raise ValueError(
                    f"explicit: got {b.name!r}, whose {what} differs by {float(gap):.3e} from that of {a.name!r}, "
                    f"expected the same"
                )
        for what, found in (("order", self.order_residuals()), ("embedded order", self.embedded_residuals())):
            for tree, residual in found.items():
                if abs(residual) > TOLERANCE:
                    raise ValueError(
                        f"tableau {self.name!r}: a coupling condition of the {what}, of the tree {tree_name(tree)} "
                        f"({node_count(tree)} nodes), has the residual {float(residual):.3e}, expected at most 1e-14"
                    )

    @property
    def name(self) -> str:
        """Name of the implicit method."""
        return self.implicit.name

    @property
    def order(self) -> int:
        """Order of both methods together."""
        return self.implicit.order

    @property
    def error_order(self) -> int | None:
        """Order of their error estimate."""
        return self.implicit.error_order

    def order_residuals(self) -> dict[Tree, Decimal]:
        """The largest residual among the colourings of every rooted tree up to `order`."""
        return self._residuals(self.implicit.b, self.order)

    def embedded_residuals(self) -> dict[Tree, Decimal]:
        """The same of the embedded weights up to their order; empty without any."""
        return self._residuals(self.implicit.b_hat, self.implicit.embedded_order)

    def _residuals(self, weights: Sequence[Fraction] | None, order: int | None) -> dict[Tree, Decimal]:
        if weights is None or order is None:
            return {}
        with localcontext(DIGITS):
            b = _decimals(weights)
            methods = [[_decimals(row) for row in table.a] for table in (self.implicit, self.explicit)]
            return {
                tree: max(
                    (
                        abs(_dot(b, values) - 1 / Decimal(density(tree)))
                        for values in _colourings(tree, methods, len(b))
                    ),
                )
                for nodes in range(1, order + 1)
                for tree in rooted_trees(nodes)
            }


def _colourings(tree: Tree, methods: Sequence[Sequence[Vector]], stages: int) -> list[Vector]:
    """`Phi_i` of the tree at every stage, for each way in which the nodes above its root belong to the methods."""
    branches = [
        [[_dot(row, inner) for row in a] for a in methods for inner in _colourings(child, methods, stages)]
        for child in tree
    ]
    return [
        [prod((branch[i] for branch in chosen), start=Decimal(1)) for i in range(stages)]
        for chosen in product(*branches)
    ]


def _dot(x: Vector, y: Vector) -> Decimal:
    return sum((a * b for a, b in zip(x, y, strict=False)), Decimal(0))


def _decimals(values: Sequence[Fraction]) -> Vector:
    return [Decimal(value.numerator) / value.denominator for value in values]
