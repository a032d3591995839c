"""A splitting method as its coefficients, checked when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, pairwise
from math import isfinite
from numbers import Rational
from typing import get_args

from dyn_numerics.ode.split_field import Part
from dyn_numerics.ode.tableaus.butcher_tableau import Coefficient

__all__ = ["SymmetricComposition"]

ROUNDED_TOLERANCE = Fraction(1, 10**14)
POWERS: dict[int, tuple[int, ...]] = {2: (), 4: (3,)}  # the sums of odd powers of the weights that vanish for an order


@dataclass(frozen=True, init=False)
class SymmetricComposition:
    """A symmetric splitting method: Strang's of order 2, composed with itself in steps of given lengths.

    Strang's method of length h steps one part of a field by h/2, the other by h, and the first by h/2 again. Between two of
    them the first part's steps are one. Building a composition checks that its lengths add up to 1, that it reads the same
    backwards, and Yoshida's condition for order 4. Lengths of `int` and `Fraction` must satisfy these exactly, others to
    1e-14.

    Args:
        name: Name of the method, for messages.
        order: Its order, 2 or 4.
        lengths: Lengths of Strang's method, in those of the whole step.
        outer: The part of the field that is stepped first and last.
        source: Where the coefficients were published.

    Attributes:
        outer_lengths: How far the outer part is stepped each time, one more than there are lengths.
        outer_nodes: Where in the step it is evaluated for these, 0 first and 1 last.
        inner_nodes: Where the other part is evaluated, one for each of the lengths.

    Raises:
        ValueError: If one of these does not hold; the message names it and its residual.

    Example:
        >>> from dyn_numerics.ode.tableaus.symmetric_composition import SymmetricComposition
        >>> verlet = SymmetricComposition(name="verlet", order=2, lengths=[1], outer="b", source="Verlet (1967)")
        >>> verlet.outer_lengths, verlet.inner_nodes
        ((Fraction(1, 2), Fraction(1, 2)), (Fraction(1, 2),))

    References:
        - G. Strang: On the construction and comparison of difference schemes, SIAM Journal on Numerical Analysis 5 (1968), 506-517.
        - H. Yoshida: Construction of higher order symplectic integrators, Phys. Lett. A 150 (1990), 262-268.
        - Hairer, Lubich, Wanner: Geometric Numerical Integration, 2nd ed. (2006), section V.3.2.
    """

    name: str
    order: int
    lengths: tuple[Fraction, ...]
    outer: Part
    source: str

    def __init__(self, *, name: str, order: int, lengths: Sequence[Coefficient], outer: Part, source: str) -> None:
        for length in lengths:
            if not isinstance(length, (Rational, Decimal, float)) or not isfinite(length):
                raise ValueError(f"composition {name!r}: got the length {length!r}, expected a finite number")
        fields = {
            "name": name,
            "order": order,
            "lengths": tuple(Fraction(length) for length in lengths),
            "outer": outer,
            "source": source,
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)
        self._check(Fraction(0) if all(isinstance(x, Rational) for x in lengths) else ROUNDED_TOLERANCE)

    @property
    def inner(self) -> Part:
        """The part that is stepped in between."""
        return "b" if self.outer == "a" else "a"

    @property
    def outer_lengths(self) -> tuple[Fraction, ...]:
        return tuple((x + y) / 2 for x, y in pairwise((Fraction(0), *self.lengths, Fraction(0))))

    @property
    def outer_nodes(self) -> tuple[Fraction, ...]:
        return tuple(accumulate(self.lengths, initial=Fraction(0)))

    @property
    def inner_nodes(self) -> tuple[Fraction, ...]:
        return tuple(accumulate(self.outer_lengths))[:-1]

    def _check(self, tolerance: Fraction) -> None:
        if self.outer not in get_args(Part):
            raise self._wrong(f"outer is {self.outer!r}, expected one of {', '.join(map(repr, get_args(Part)))}")
        if self.order not in POWERS:
            raise self._wrong(f"order is {self.order!r}, expected one of {', '.join(map(str, POWERS))}")
        lengths, none = self.lengths, Fraction(0)
        backwards = [abs(x - y) for x, y in zip(lengths, reversed(lengths), strict=True)]
        residuals = {
            "the lengths add up to 1": sum(lengths, none) - 1,
            "the lengths read the same backwards": max(backwards, default=none),
            **{
                f"the powers {n} of the lengths add up to 0": sum((x**n for x in lengths), none)
                for n in POWERS[self.order]
            },
        }
        for condition, residual in residuals.items():
            if abs(residual) > tolerance:
                expected = "at most 1e-14" if tolerance else "0"
                raise self._wrong(
                    f"the condition that {condition} has the residual {float(residual):.3e}, expected {expected}; check "
                    f"the lengths or claim a lower order"
                )

    def _wrong(self, sentence: str) -> ValueError:
        return ValueError(f"composition {self.name!r}: {sentence}")
