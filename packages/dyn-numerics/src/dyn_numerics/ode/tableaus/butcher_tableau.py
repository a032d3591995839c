"""A Runge-Kutta method as data that checks itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from math import isfinite
from numbers import Rational
from typing import Any, NamedTuple

from dyn_numerics.ode.tableaus.order_conditions import (
    Tree,
    dense_residuals,
    node_count,
    residuals,
    tree_name,
)
from dyn_numerics.ode.tableaus.stage_predictors import predictor_rows, trend_rows

__all__ = ["ButcherTableau", "Coefficient", "HostTable"]

Coefficient = int | Fraction | Decimal | float
"""A number of a table; `int` and `Fraction` are exact."""

ROUNDED_TOLERANCE = Fraction(1, 10**14)
DIGITS = Context(prec=50)


class HostTable(NamedTuple):
    """A table as host numbers, which a compiled program turns into constants.

    Attributes:
        rows: The rows of `a`, the weights `b`, and the weights of each error estimate.
        before_end: `1 - c`: a stage lies that share of the step before its end.
        embedded: Each of the embedded weights.
        dense: For each power of theta the weights of all stages, those of the dense output included, or None.
        dense_rows: The rows of `a` of the stages that are for the dense output alone, after the field at the new state.
        dense_before_end: `1 - c` of these.
        reuses_last_stage: Whether the last stage is the field at the new state.
        ends_twice: Whether a stage besides the field at the new state is at the end of the step.
        stiffly_accurate: Whether the last stage is the new state.
        diagonal: The diagonal of `a`.
        predictor: Of an implicit table, `predictor_rows`.
        trend: Of an implicit table, `trend_rows`.
    """

    rows: list[list[float]]
    before_end: list[float]
    embedded: list[list[float]]
    dense: list[list[float]] | None
    dense_rows: list[list[float]]
    dense_before_end: list[float]
    reuses_last_stage: bool
    ends_twice: bool
    stiffly_accurate: bool
    diagonal: list[float]
    predictor: list[list[float]]
    trend: list[list[float]]


@dataclass(frozen=True, init=False)
class ButcherTableau:
    """A Runge-Kutta method, explicit or diagonally implicit: its coefficients, order and source, and nothing else.

    The nodes `c` (row sums of `a`) and the error weights `b - b_hat` are derived. Building a table checks the order
    condition of every rooted tree up to `order`, of the embedded weights up to `embedded_order`, and of the dense
    output up to `dense_order`. A table of `int` and `Fraction` must satisfy them exactly; one that holds a `Decimal`
    or a `float` to 1e-14.

    Args:
        name: Name of the method, for messages.
        order: Order of the solution that `b` advances.
        a: Lower rows: row i holds the i coefficients of stage i, so that the first row is empty, and one more on the
            diagonal if the stage is implicit.
        b: Weights of the solution, one for each stage.
        b_hat: Weights of the embedded solution, or None when the method has no error estimate.
        embedded_order: Order of the embedded solution; required with `b_hat`.
        b_check: Weights of a second embedded solution of lower order, or None. The two estimates are then combined to
            one of order `2 * embedded_order - check_order`, as in DOP853.
        check_order: Order of the second embedded solution; required with `b_check`.
        dense: For each stage the coefficients of its continuous weight `b_i(theta)` at theta, theta^2, ..., with
            `b_i(1) = b_i`, or None when the method has no interpolant of its own. Beyond the stages of the step there
            may be, in this order, the field at the new state, unless the last stage is that already, and the stages of
            `a_dense`.
        dense_order: Order of the dense output; required with `dense`.
        a_dense: Rows of `a` of stages that are evaluated for the dense output alone.
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
    b_check: tuple[Fraction, ...] | None
    check_order: int | None
    dense: tuple[tuple[Fraction, ...], ...] | None
    dense_order: int | None
    a_dense: tuple[tuple[Fraction, ...], ...]
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
        b_check: Sequence[Coefficient] | None = None,
        check_order: int | None = None,
        dense: Sequence[Sequence[Coefficient]] | None = None,
        dense_order: int | None = None,
        a_dense: Sequence[Sequence[Coefficient]] = (),
    ) -> None:
        rows = [*a, b, b_hat or (), b_check or (), *(dense or ()), *a_dense]
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
            "b_check": None if b_check is None else _fractions(b_check),
            "check_order": check_order,
            "dense": None if dense is None else tuple(_fractions(row) for row in dense),
            "dense_order": dense_order,
            "a_dense": tuple(_fractions(row) for row in a_dense),
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
    def diagonal(self) -> tuple[Fraction, ...]:
        """The coefficients on the diagonal of `a`: 0 for a stage that is explicit."""
        return tuple(row[i] if len(row) > i else Fraction(0) for i, row in enumerate(self.a))

    @property
    def explicit(self) -> bool:
        """Whether every stage follows from those before it."""
        return not any(self.diagonal)

    @property
    def stiffly_accurate(self) -> bool:
        """Whether the last stage is the new state."""
        return (*self.a[-1], Fraction(0))[: self.stages] == self.b

    @property
    def error_weights(self) -> tuple[tuple[Fraction, ...], ...]:
        """Weights `b - b_hat` of each error estimate, that of `b_check` last."""
        embedded = (weights for weights in (self.b_hat, self.b_check) if weights is not None)
        return tuple(tuple(x - y for x, y in zip(self.b, weights, strict=True)) for weights in embedded)

    @property
    def error_order(self) -> int | None:
        """The order p of the lower solution for which the error estimate is O(dt^(p + 1)), or None without one."""
        if self.embedded_order is None:
            return None
        first = min(self.order, self.embedded_order)
        return first if self.check_order is None else 2 * first - self.check_order

    @property
    def dense_stages(self) -> tuple[tuple[Fraction, ...], ...]:
        """The rows of `a` of all stages that the dense output weighs."""
        rows = self.a
        if self.dense is not None and len(self.dense) > self.stages and not self.reuses_last_stage:
            rows = (*rows, self.b)
        return (*rows, *self.a_dense)

    @property
    def reuses_last_stage(self) -> bool:
        """Whether the last stage is the field at the new state, and so the next step's first stage."""
        return self.stages > 1 and not self.diagonal[0] and self.stiffly_accurate

    def _numbers(self) -> HostTable:
        ends = [abs(c - 1) <= ROUNDED_TOLERANCE for c in self.c]
        return HostTable(
            rows=_floats([*self.a, self.b, *self.error_weights]),
            before_end=[float(1 - c) for c in self.c],
            embedded=_floats(weights for weights in (self.b_hat, self.b_check) if weights is not None),
            dense=None if self.dense is None else _floats(zip(*self.dense, strict=True)),
            dense_rows=_floats(self.a_dense),
            dense_before_end=[float(1 - sum(row)) for row in self.a_dense],
            reuses_last_stage=self.reuses_last_stage,
            ends_twice=self.stages > 1 and (all(ends[-2:]) if self.reuses_last_stage else ends[-1]),
            stiffly_accurate=self.stiffly_accurate,
            diagonal=[float(entry) for entry in self.diagonal],
            predictor=[] if self.explicit else predictor_rows(self.c),
            trend=[] if self.explicit else trend_rows(self.c),
        )

    def order_residuals(self) -> dict[Tree, Fraction]:
        """Residuals `sum_i b_i Phi_i(tree) - 1 / gamma(tree)` of every rooted tree up to `order`.

        They are exact for an exact table, and otherwise computed with 50 digits.
        """
        return self._residuals_of(self.b, self.order)

    def embedded_residuals(self) -> dict[Tree, Fraction]:
        """The same for the embedded weights up to `embedded_order`; empty without embedded weights."""
        return self._residuals_of(self.b_hat, self.embedded_order)

    def check_residuals(self) -> dict[Tree, Fraction]:
        """The same for the second embedded weights up to `check_order`; empty without them."""
        return self._residuals_of(self.b_check, self.check_order)

    def dense_residuals(self) -> dict[Tree, Fraction]:
        """The same for the dense output up to `dense_order`, the largest coefficient of each; empty without one."""
        if self.dense is None or self.dense_order is None:
            return {}
        with localcontext(DIGITS):
            a, dense = self._computable(self.dense_stages), self._computable(self.dense)
            return {tree: Fraction(found) for tree, found in dense_residuals(a, dense, self.dense_order)}

    def _residuals_of(self, weights: tuple[Fraction, ...] | None, order: int | None) -> dict[Tree, Fraction]:
        if weights is None or order is None:
            return {}
        with localcontext(DIGITS):
            a, (b,) = self._computable(self.a), self._computable([weights])
            return {tree: Fraction(found) for tree, found in residuals(a, b, order)}

    def _computable(self, rows: Iterable[Iterable[Fraction]]) -> Any:
        """Rows of exact numbers if the table is exact; decimals, whose length does not grow, if not."""
        if self.exact:
            return [list(row) for row in rows]
        return [[Decimal(x.numerator) / x.denominator for x in row] for row in rows]

    def _check_shapes(self) -> None:
        for name, order in (
            ("order", self.order),
            ("embedded_order", self.embedded_order),
            ("check_order", self.check_order),
            ("dense_order", self.dense_order),
        ):
            if order is not None and (isinstance(order, bool) or not isinstance(order, int) or order < 1):
                raise self._wrong(f"{name} is {order!r}, expected a positive integer")
        if not self.b:
            raise self._wrong("b is empty, expected one weight for each stage")
        if len(self.a) != self.stages:
            raise self._wrong(f"a has {len(self.a)} rows and b {self.stages} weights, expected as many")
        for i, row in enumerate(self.a):
            if len(row) not in (i, i + 1):
                raise self._wrong(
                    f"row {i} of a has {len(row)} entries, expected {i}, or {i + 1} with one on the diagonal"
                )
        for name, weights, partner, order in (
            ("b_hat", self.b_hat, "embedded_order", self.embedded_order),
            ("b_check", self.b_check, "check_order", self.check_order),
            ("dense", self.dense, "dense_order", self.dense_order),
        ):
            if (weights is None) != (order is None):
                raise self._wrong(f"{name} and {partner} go together, got only one of them")
        for name, embedded in (("b_hat", self.b_hat), ("b_check", self.b_check)):
            if embedded is not None and len(embedded) != self.stages:
                raise self._wrong(f"{name} has {len(embedded)} entries, expected {self.stages}, one for each stage")
            if embedded == self.b:
                raise self._wrong(f"{name} equals b, so that every error estimate would be zero")
        if self.b_check is not None and (self.check_order or 0) >= (self.embedded_order or 0):
            raise self._wrong(
                f"check_order is {self.check_order}, expected less than embedded_order {self.embedded_order}"
            )
        self._check_shapes_of_dense_output()

    def _check_shapes_of_dense_output(self) -> None:
        if self.dense is None:
            if self.a_dense:
                raise self._wrong("a_dense has rows and dense is None, expected both or neither")
            return
        known = self.stages if self.reuses_last_stage else self.stages + 1  # with the field at the new state
        counts = [known + len(self.a_dense)] if self.a_dense else sorted({self.stages, known})
        if len(self.dense) not in counts:
            raise self._wrong(
                f"dense has {len(self.dense)} entries, expected {' or '.join(map(str, counts))}, one for each stage"
            )
        for i, row in enumerate(self.a_dense):
            if len(row) != known + i:
                raise self._wrong(f"row {i} of a_dense has {len(row)} entries, expected {known + i}")
        if len({len(row) for row in self.dense}) != 1:
            raise self._wrong("the rows of dense have different lengths, expected one degree for all stages")
        if len(self.dense[0]) < (self.dense_order or 0):
            raise self._wrong(
                f"dense has degree {len(self.dense[0])}, expected at least dense_order {self.dense_order}"
            )

    def _check_conditions(self) -> None:
        tolerance = Fraction(0) if self.exact else ROUNDED_TOLERANCE
        for what, found in (
            ("order", self.order_residuals()),
            ("embedded order", self.embedded_residuals()),
            ("second embedded order", self.check_residuals()),
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
            weight = self.b[i] if i < self.stages else Fraction(0)
            gap = sum(row, Fraction(0)) - weight
            if abs(gap) > tolerance:
                raise self._wrong(f"the dense weight of stage {i} ends {float(gap):.3e} away from its weight in b")

    def _wrong(self, sentence: str) -> ValueError:
        return ValueError(f"tableau {self.name!r}: {sentence}")


def _floats(rows: Iterable[Iterable[Fraction]]) -> list[list[float]]:
    return [[float(value) for value in row] for row in rows]


def _fractions(values: Iterable[Coefficient]) -> tuple[Fraction, ...]:
    return tuple(Fraction(value) for value in values)
