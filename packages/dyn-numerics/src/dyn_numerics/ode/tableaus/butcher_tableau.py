"""A Runge-Kutta method as data that checks itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from numbers import Rational
from typing import NamedTuple

from dyn_numerics.ode.tableaus.order_conditions import (
    Tree,
    dense_residuals,
    node_count,
    residuals,
    tree_name,
)

__all__ = ["ButcherTableau", "Coefficient", "HostTable"]

Coefficient = int | Fraction | Decimal | float
"""A number of a table; `int` and `Fraction` are exact."""

ROUNDED_TOLERANCE = Fraction(1, 10**14)


class HostTable(NamedTuple):
    """A table as host numbers, which a compiled program turns into constants.

    Attributes:
        rows: The rows of `a`, the weights `b`, and the error weights if there are any.
        before_end: `1 - c`: a stage lies that share of the step before its end.
        b_hat: The embedded weights, or None.
        dense: For each power of theta the weights of all stages, or None.
        reuses_last_stage: Whether the last stage is the field at the new state.
        ends_twice: Whether the last two stages are at the end of the step.
    """

    rows: list[list[float]]
    before_end: list[float]
    b_hat: list[float] | None
    dense: list[list[float]] | None
    reuses_last_stage: bool
    ends_twice: bool


@dataclass(frozen=True, init=False)
class ButcherTableau:
    """An explicit Runge-Kutta method: its coefficients, order and source, and nothing else.

    The nodes `c` (row sums of `a`) and the error weights `b - b_hat` are derived. Building a table checks the order
    condition of every rooted tree up to `order`, of the embedded weights up to `embedded_order`, and of the dense
    output up to `dense_order`. A table of `int` and `Fraction` must satisfy them exactly; one that holds a `Decimal`
    or a `float` to 1e-14.

    Args:
        name: Name of the method, for messages.
        order: Order of the solution that `b` advances.
        a: Strictly lower rows: row i holds the i coefficients of stage i, so the first row is empty.
        b: Weights of the solution, one for each stage.
        b_hat: Weights of the embedded solution, or None when the method has no error estimate.
        embedded_order: Order of the embedded solution; required with `b_hat`.
        dense: For each stage the coefficients of its continuous weight `b_i(theta)` at theta, theta^2, ..., with
            `b_i(1) = b_i`, or None when the method has no interpolant of its own.
        dense_order: Order of the dense output; required with `dense`.
        source: Where the coefficients were published.

    Raises:
        ValueError: If the shapes disagree, or a condition fails; the message names the tree and its residual.

    Example:
        >>> from fractions import Fraction
        >>> half = Fraction(1, 2)
        >>> midpoint = ButcherTableau(name="midpoint", order=2, a=[[], [half]], b=[0, 1], source="Runge (1895)")
        >>> midpoint.c, midpoint.exact
        ((Fraction(0, 1), Fraction(1, 2)), True)

    References:
        J. C. Butcher: Numerical Methods for Ordinary Differential Equations, 3rd ed. (2016), chapter 3.
    """

    name: str
    order: int
    a: tuple[tuple[Fraction, ...], ...]
    b: tuple[Fraction, ...]
    b_hat: tuple[Fraction, ...] | None
    embedded_order: int | None
    dense: tuple[tuple[Fraction, ...], ...] | None
    dense_order: int | None
    source: str
    exact: bool
    numbers: HostTable

    def __init__(
        self,
        *,
        name: str,
        order: int,
        a: Sequence[Sequence[Coefficient]],
        b: Sequence[Coefficient],
        source: str,
        b_hat: Sequence[Coefficient] | None = None,
        embedded_order: int | None = None,
        dense: Sequence[Sequence[Coefficient]] | None = None,
        dense_order: int | None = None,
    ) -> None:
        rows = [*a, b, b_hat or (), *(dense or ())]
        for x in (x for row in rows for x in row):
            if not isinstance(x, (Rational, Decimal, float)) or not isfinite(x):
                raise ValueError(f"tableau {name!r}: got the coefficient {x!r}, expected a finite number")
        fields = {
            "name": name,
            "order": order,
            "a": tuple(_fractions(row) for row in a),
            "b": _fractions(b),
            "b_hat": None if b_hat is None else _fractions(b_hat),
            "embedded_order": embedded_order,
            "dense": None if dense is None else tuple(_fractions(row) for row in dense),
            "dense_order": dense_order,
            "source": source,
            "exact": all(isinstance(x, Rational) for row in rows for x in row),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)
        self._check_shapes()
        self._check_conditions()
        object.__setattr__(self, "numbers", self._numbers())

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.b)

    @property
    def c(self) -> tuple[Fraction, ...]:
        """Nodes, the row sums of `a`."""
        return tuple(sum(row, Fraction(0)) for row in self.a)

    @property
    def error_weights(self) -> tuple[Fraction, ...] | None:
        """Weights `b - b_hat` of the error estimate, or None."""
        if self.b_hat is None:
            return None
        return tuple(x - y for x, y in zip(self.b, self.b_hat, strict=True))

    @property
    def reuses_last_stage(self) -> bool:
        """Whether the last stage is the field at the new state, and so the next step's first stage."""
        return self.stages > 1 and self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    def _numbers(self) -> HostTable:
        return HostTable(
            rows=_floats([*self.a, self.b, self.error_weights or ()]),
            before_end=[float(1 - c) for c in self.c],
            b_hat=None if self.b_hat is None else _floats([self.b_hat])[0],
            dense=None if self.dense is None else _floats(zip(*self.dense, strict=True)),
            reuses_last_stage=self.reuses_last_stage,
            ends_twice=self.stages > 2 and all(abs(c - 1) <= ROUNDED_TOLERANCE for c in self.c[-2:]),
        )

    def order_residuals(self) -> dict[Tree, Fraction]:
        """Residuals `sum_i b_i Phi_i(tree) - 1 / gamma(tree)` of every rooted tree up to `order`, exactly."""
        return dict(residuals(self.a, self.b, self.order))

    def embedded_residuals(self) -> dict[Tree, Fraction]:
        """The same for the embedded weights up to `embedded_order`; empty without embedded weights."""
        if self.b_hat is None:
            return {}
        return dict(residuals(self.a, self.b_hat, self.embedded_order or 0))

    def dense_residuals(self) -> dict[Tree, Fraction]:
        """The same for the dense output up to `dense_order`, the largest coefficient of each; empty without one."""
        if self.dense is None:
            return {}
        return dict(dense_residuals(self.a, self.dense, self.dense_order or 0))

    def _check_shapes(self) -> None:
        for name, order in (
            ("order", self.order),
            ("embedded_order", self.embedded_order),
            ("dense_order", self.dense_order),
        ):
            if order is not None and (isinstance(order, bool) or not isinstance(order, int) or order < 1):
                raise self._wrong(f"{name} is {order!r}, expected a positive integer")
        if not self.b:
            raise self._wrong("b is empty, expected one weight for each stage")
        if len(self.a) != self.stages:
            raise self._wrong(f"a has {len(self.a)} rows and b {self.stages} weights, expected as many")
        for i, row in enumerate(self.a):
            if len(row) != i:
                raise self._wrong(f"row {i} of a has {len(row)} entries, expected {i} (strictly lower rows)")
        for name, value, order in (
            ("b_hat", self.b_hat, self.embedded_order),
            ("dense", self.dense, self.dense_order),
        ):
            if (value is None) != (order is None):
                partner = "embedded_order" if name == "b_hat" else "dense_order"
                raise self._wrong(f"{name} and {partner} go together, got only one of them")
            if value is not None and len(value) != self.stages:
                raise self._wrong(f"{name} has {len(value)} entries, expected {self.stages}, one for each stage")
        if self.b_hat == self.b:
            raise self._wrong("b_hat equals b, so that every error estimate would be zero")
        if self.dense is not None and len({len(row) for row in self.dense}) != 1:
            raise self._wrong("the rows of dense have different lengths, expected one degree for all stages")
        if self.dense is not None and len(self.dense[0]) < (self.dense_order or 0):
            raise self._wrong(
                f"dense has degree {len(self.dense[0])}, expected at least dense_order {self.dense_order}"
            )

    def _check_conditions(self) -> None:
        tolerance = Fraction(0) if self.exact else ROUNDED_TOLERANCE
        for what, found in (
            ("order", self.order_residuals()),
            ("embedded order", self.embedded_residuals()),
            ("dense output", self.dense_residuals()),
        ):
            for tree, residual in found.items():
                if abs(residual) > tolerance:
                    raise self._wrong(
                        f"the {what} condition of the tree {tree_name(tree)} ({node_count(tree)} nodes) has the "
                        f"residual {float(residual):.3e}, expected {'0' if self.exact else 'at most 1e-14'}; "
                        f"check the coefficients or claim a lower order"
                    )
        for i, row in enumerate(self.dense or ()):
            gap = sum(row, Fraction(0)) - self.b[i]
            if abs(gap) > tolerance:
                raise self._wrong(f"the dense weight of stage {i} ends {float(gap):.3e} away from b[{i}]")

    def _wrong(self, sentence: str) -> ValueError:
        return ValueError(f"tableau {self.name!r}: {sentence}")


def _floats(rows: Iterable[Iterable[Fraction]]) -> list[list[float]]:
    return [[float(value) for value in row] for row in rows]


def _fractions(values: Iterable[Coefficient]) -> tuple[Fraction, ...]:
    return tuple(Fraction(value) for value in values)
