"""A Rosenbrock method as data that checks itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isfinite
from numbers import Rational
from typing import Any, NamedTuple, Self

from dyn_numerics.ode.tableaus.butcher_tableau import DIGITS, ROUNDED_TOLERANCE, Coefficient
from dyn_numerics.ode.tableaus.order_conditions import Tree, dense_residuals, node_count, residuals, tree_name

__all__ = ["RosenbrockNumbers", "RosenbrockTableau"]

DENSE_TOLERANCE = Fraction(1, 10**12)  # 16 digits of weights that are published transformed, of up to 100

Rows = tuple[tuple[Fraction, ...], ...]


class RosenbrockNumbers(NamedTuple):
    """A table as host numbers, in the form that needs no products with the Jacobian.

    In `u_i = dt sum_j gamma_ij k_j`, stage i is the linear system
    `(I - gamma_ii dt J) u_i = gamma_ii (dt f(t_i, x + sum_j a_ij u_j) + sum_j c_ij u_j + rates_i dt^2 df/dt)`.

    Attributes:
        gamma: The diagonal of the matrix gamma.
        a: Rows of `alpha gamma^-1`, strictly lower.
        c: Rows of `1 / gamma_ii - gamma^-1`, strictly lower.
        b: `b gamma^-1`, the weights of the new state.
        error: `(b - b_hat) gamma^-1`, those of the error estimate, or None.
        dense: For each power of theta, from the first on, the weights of the dense output.
        before_end: `1 - c_i`: a stage lies that share of the step before its end.
        rates: The row sums of gamma.
    """

    gamma: float
    a: list[list[float]]
    c: list[list[float]]
    b: list[float]
    error: list[float] | None
    dense: list[list[float]]
    before_end: list[float]
    rates: list[float]


@dataclass(frozen=True, init=False)
class RosenbrockTableau:
    """A Rosenbrock method: its coefficients, order and source, and nothing else.

    Stage i of a step from `(t, x)` is the linear system
    `k_i = f(t + c_i dt, x + dt sum_j alpha_ij k_j) + dt J sum_j gamma_ij k_j + gamma_i dt df/dt`
    with the Jacobian `J` and `df/dt` at `(t, x)`, and the new state is `x + dt sum_i b_i k_i`. The nodes `c_i` and the
    coefficients `gamma_i` are the row sums of alpha and gamma: they are derived, never typed, as is `b - b_hat`.

    Building a table checks the order condition of every rooted tree up to `order`, of the embedded weights up to
    `embedded_order`, and of the dense output up to `dense_order`. A table of `int` and `Fraction` must satisfy them
    exactly; one that holds a `Decimal` or a `float` to 1e-14, its dense output to 1e-12.

    Args:
        name: Name of the method, for messages.
        order: Order of the solution that `b` advances.
        alpha: Strictly lower rows: row i holds the i coefficients of stage i, so the first row is empty.
        gamma: Lower rows: row i holds i + 1 coefficients, and all end with the same.
        b: Weights of the solution, one for each stage.
        b_hat: Weights of the embedded solution, or None when the method has no error estimate.
        embedded_order: Order of the embedded solution; required with `b_hat`.
        dense: For each stage the coefficients of its continuous weight `b_i(theta)` at theta, theta^2, ..., with
            `b_i(1) = b_i`.
        dense_order: Order of the dense output.
        source: Where the coefficients were published.

    Raises:
        ValueError: If the shapes disagree, or a condition fails; the message names the tree and its residual.

    Example:
        >>> from fractions import Fraction
        >>> half = Fraction(1, 2)
        >>> midpoint = RosenbrockTableau(
        ...     name="linearly implicit midpoint", order=2, alpha=[[]], gamma=[[half]], b=[1], dense=[[1]], dense_order=1,
        ...     source="Rosenbrock (1963)",
        ... )
        >>> midpoint.exact, midpoint.numbers.b
        (True, [2.0])

    References:
        E. Hairer, G. Wanner: Solving Ordinary Differential Equations II, 2nd ed., section IV.7.
    """

    name: str
    order: int
    alpha: Rows
    gamma: Rows
    b: tuple[Fraction, ...]
    b_hat: tuple[Fraction, ...] | None
    embedded_order: int | None
    dense: Rows
    dense_order: int
    source: str
    exact: bool
    numbers: RosenbrockNumbers

    def __init__(
        self,
        *,
        name: str,
        order: int,
        alpha: Sequence[Sequence[Coefficient]],
        gamma: Sequence[Sequence[Coefficient]],
        b: Sequence[Coefficient],
        dense: Sequence[Sequence[Coefficient]],
        dense_order: int,
        source: str,
        b_hat: Sequence[Coefficient] | None = None,
        embedded_order: int | None = None,
    ) -> None:
        rows = [*alpha, *gamma, b, b_hat or (), *dense]
        for x in (x for row in rows for x in row):
            if not isinstance(x, (Rational, Decimal, float)) or not isfinite(x):
                raise ValueError(f"tableau {name!r}: got the coefficient {x!r}, expected a finite number")
        fields = {
            "name": name,
            "order": order,
            "alpha": _fractions(alpha),
            "gamma": _fractions(gamma),
            "b": _fractions([b])[0],
            "b_hat": None if b_hat is None else _fractions([b_hat])[0],
            "embedded_order": embedded_order,
            "dense": _fractions(dense),
            "dense_order": dense_order,
            "source": source,
            "exact": all(isinstance(x, Rational) for row in rows for x in row),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)
        self._check_shapes()
        self._check_conditions()
        object.__setattr__(self, "numbers", self._numbers())

    @classmethod
    def from_transformed(
        cls,
        *,
        gamma: Decimal,
        a: Sequence[Sequence[Decimal]],
        c: Sequence[Sequence[Decimal]],
        b: Sequence[Decimal],
        dense: Sequence[Sequence[Decimal]],
        b_hat: Sequence[Decimal] | None = None,
        **others: Any,
    ) -> Self:
        """The table of a method that was published in the form of `RosenbrockNumbers`, computed with 50 digits.

        Args:
            gamma: The diagonal of the matrix gamma.
            a: Strictly lower rows of `alpha gamma^-1`.
            c: Strictly lower rows of `1 / gamma_ii - gamma^-1`.
            b: `b gamma^-1`.
            dense: For each stage its continuous weight in `b(theta) gamma^-1`.
            b_hat: `b_hat gamma^-1`, or None.
            **others: The other arguments of the table.
        """
        with localcontext(DIGITS):
            matrix = _inverse([[*(-x for x in row), 1 / gamma] for row in c])
            return cls(
                alpha=[row[:i] for i, row in enumerate(_times(a, matrix))],
                gamma=matrix,
                b=_times([b], matrix)[0],
                b_hat=None if b_hat is None else _times([b_hat], matrix)[0],
                dense=_transposed(_times(_transposed(dense), matrix)),
                **others,
            )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.b)

    @property
    def c(self) -> tuple[Fraction, ...]:
        """Nodes, the row sums of alpha."""
        return tuple(sum(row, Fraction(0)) for row in self.alpha)

    @property
    def error_order(self) -> int | None:
        """The order p of the lower solution for which the error estimate is O(dt^(p + 1)), or None without one."""
        return None if self.embedded_order is None else min(self.order, self.embedded_order)

    def order_residuals(self) -> dict[Tree, Fraction]:
        """Residuals `sum_i b_i Phi_i(tree) - 1 / gamma(tree)` of every rooted tree up to `order`.

        They are exact for an exact table, and otherwise computed with 50 digits.
        """
        return self._residuals_of(self.b, self.order)

    def embedded_residuals(self) -> dict[Tree, Fraction]:
        """The same for the embedded weights up to `embedded_order`; empty without embedded weights."""
        return self._residuals_of(self.b_hat, self.embedded_order)

    def dense_residuals(self) -> dict[Tree, Fraction]:
        """The same for the dense output up to `dense_order`, the largest coefficient of each."""
        with localcontext(DIGITS):
            alpha, beta, dense = (self._computable(rows) for rows in (self.alpha, self._beta, self.dense))
            found = dense_residuals(alpha, dense, self.dense_order, only=beta)
            return {tree: Fraction(residual) for tree, residual in found}

    @property
    def _beta(self) -> Rows:
        """The matrix alpha + gamma, which belongs to nodes with one child."""
        padded = zip(self.gamma, self.alpha, strict=True)
        return tuple(tuple(g + a for g, a in zip(gamma, (*alpha, Fraction(0)), strict=True)) for gamma, alpha in padded)

    def _residuals_of(self, weights: tuple[Fraction, ...] | None, order: int | None) -> dict[Tree, Fraction]:
        if weights is None or order is None:
            return {}
        with localcontext(DIGITS):
            alpha, beta, (b,) = (self._computable(rows) for rows in (self.alpha, self._beta, [weights]))
            return {tree: Fraction(found) for tree, found in residuals(alpha, b, order, only=beta)}

    def _computable(self, rows: Iterable[Iterable[Fraction]]) -> list[list[Any]]:
        """Rows of exact numbers if the table is exact; decimals, whose length does not grow, if not."""
        if self.exact:
            return [list(row) for row in rows]
        return [[Decimal(x.numerator) / x.denominator for x in row] for row in rows]

    def _numbers(self) -> RosenbrockNumbers:
        with localcontext(DIGITS):
            inverse = _inverse(self._computable(self.gamma))

            def transformed(rows: Iterable[Iterable[Fraction]]) -> list[list[float]]:
                return [[float(x) for x in row] for row in _times(self._computable(rows), inverse)]

            b, *b_hat = transformed([self.b] if self.b_hat is None else [self.b, self.b_hat])
            alpha, dense = transformed(self.alpha), transformed(_transposed(self.dense))
        return RosenbrockNumbers(
            gamma=float(self.gamma[0][0]),
            a=[row[:i] for i, row in enumerate(alpha)],
            c=[[float(-x) for x in row[:-1]] for row in inverse],
            b=b,
            error=[x - y for x, y in zip(b, b_hat[0], strict=True)] if b_hat else None,
            dense=dense,
            before_end=[_rounded(1 - c) for c in self.c],
            rates=[_rounded(sum(row, Fraction(0))) for row in self.gamma],
        )

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
        for name, rows, extra in (("alpha", self.alpha, 0), ("gamma", self.gamma, 1)):
            if len(rows) != self.stages:
                raise self._wrong(f"{name} has {len(rows)} rows and b {self.stages} weights, expected as many")
            for i, row in enumerate(rows):
                if len(row) != i + extra:
                    raise self._wrong(f"row {i} of {name} has {len(row)} entries, expected {i + extra}")
        if self.gamma[0][0] <= 0 or any(row[-1] != self.gamma[0][0] for row in self.gamma):
            raise self._wrong("the rows of gamma end with different numbers, expected one positive number for all")
        if (self.b_hat is None) != (self.embedded_order is None):
            raise self._wrong("b_hat and embedded_order go together, got only one of them")
        if self.b_hat is not None and len(self.b_hat) != self.stages:
            raise self._wrong(f"b_hat has {len(self.b_hat)} entries, expected {self.stages}, one for each stage")
        if self.b_hat == self.b:
            raise self._wrong("b_hat equals b, so that every error estimate would be zero")
        if len(self.dense) != self.stages or len({len(row) for row in self.dense}) != 1:
            raise self._wrong(f"dense: expected {self.stages} rows of one length, one for each stage")
        if len(self.dense[0]) < self.dense_order:
            raise self._wrong(
                f"dense has degree {len(self.dense[0])}, expected at least dense_order {self.dense_order}"
            )

    def _check_conditions(self) -> None:
        rounded, rounded_dense = (Fraction(0),) * 2 if self.exact else (ROUNDED_TOLERANCE, DENSE_TOLERANCE)
        for what, found, tolerance in (
            ("order", self.order_residuals(), rounded),
            ("embedded order", self.embedded_residuals(), rounded),
            ("dense output", self.dense_residuals(), rounded_dense),
        ):
            for tree, residual in found.items():
                if abs(residual) > tolerance:
                    raise self._wrong(
                        f"the {what} condition of the tree {tree_name(tree)} ({node_count(tree)} nodes) has the "
                        f"residual {float(residual):.3e}, expected at most {float(tolerance):.0e}; "
                        f"check the coefficients or claim a lower order"
                    )
        for i, (row, weight) in enumerate(zip(self.dense, self.b, strict=True)):
            gap = sum(row, Fraction(0)) - weight
            if abs(gap) > rounded_dense:
                raise self._wrong(f"the dense weight of stage {i} ends {float(gap):.3e} away from its weight in b")

    def _wrong(self, sentence: str) -> ValueError:
        return ValueError(f"tableau {self.name!r}: {sentence}")


def _fractions(rows: Iterable[Iterable[Coefficient]]) -> Rows:
    return tuple(tuple(Fraction(value) for value in row) for row in rows)


def _rounded(value: Fraction) -> float:
    """A sum of coefficients as a float, zero if it is within what rounded ones leave of zero."""
    return 0.0 if abs(value) <= ROUNDED_TOLERANCE else float(value)


def _inverse(matrix: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The inverse of a lower triangular matrix, both by rows of as many entries as are not above the diagonal."""
    rows: list[list[Any]] = []
    for *row, diagonal in matrix:
        below = [-x / diagonal for x in _times([row], rows)[0]] if row else []
        rows.append([*below, 1 / diagonal])
    return rows


def _times(rows: Sequence[Sequence[Any]], matrix: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows, which may end early, times a lower triangular matrix; the products are of full length."""
    return [
        [sum(x * other[j] for x, other in zip(row, matrix, strict=False) if j < len(other)) for j in range(len(matrix))]
        for row in rows
    ]


def _transposed(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
