"""The tables of the diagonally implicit Runge-Kutta methods, each with its source."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau

__all__ = ["IMPLICIT_EULER", "KVAERNO3", "KVAERNO5", "TRAPEZOID"]

IMPLICIT_EULER = ButcherTableau(
    name="implicit_euler",
    order=1,
    a=[[1]],
    b=[1],
    source="C. F. Curtiss, J. O. Hirschfelder: Integration of stiff equations, Proc. Natl. Acad. Sci. 38 (1952), 235-243",
)
"""The implicit Euler method, order 1, L-stable."""

TRAPEZOID = ButcherTableau(
    name="trapezoid",
    order=2,
    a=[[], [Fraction(1, 2), Fraction(1, 2)]],
    b=[Fraction(1, 2), Fraction(1, 2)],
    source="J. Crank, P. Nicolson: A practical method for numerical evaluation of solutions of partial differential "
    "equations of the heat-conduction type, Proc. Camb. Phil. Soc. 43 (1947), 50-67",
)
"""The trapezoidal rule, order 2, A-stable."""


def _kvaerno3(g: Decimal) -> ButcherTableau:
    """The table by its diagonal, a root of `6 g^3 - 18 g^2 + 9 g - 1`."""
    third = [(-4 * g * g + 6 * g - 1) / (4 * g), (1 - 2 * g) / (4 * g), g]
    b = [
        (6 * g - 1) / (12 * g),
        -1 / (12 * g * (2 * g - 1)),
        (-6 * g * g + 6 * g - 1) / (6 * g - 3),
        g,
    ]
    return ButcherTableau(
        name="kvaerno3",
        order=3,
        a=[[], [g, g], third, b],
        b=b,
        b_hat=[*third, 0],
        embedded_order=2,
        source="A. Kvaerno: Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44 (2004), "
        "489-502, method 3/2a",
    )


KVAERNO3 = _kvaerno3(Decimal("0.43586652150845899941601945119355684293"))
"""Kvaerno's pair of orders 3 and 2: both are stiffly accurate, the first L-stable."""

_G = Decimal("0.26")
_SIXTH = [
    Decimal("0.13855640231268224"),
    0,
    Decimal("-0.04245337201752043"),
    Decimal("0.02446657898003141"),
    Decimal("0.61943039072480676"),
    _G,
]
_SEVENTH = [
    Decimal("0.13659751177640291"),
    0,
    Decimal("-0.05496908796538376"),
    Decimal("-0.04118626728321046"),
    Decimal("0.62993304899016403"),
    Decimal("0.06962479448202728"),
    _G,
]

KVAERNO5 = ButcherTableau(
    name="kvaerno5",
    order=5,
    a=[
        [],
        [_G, _G],
        [Decimal("0.13"), Decimal("0.84033320996790809"), _G],
        [Decimal("0.22371961478320505"), Decimal("0.47675532319799699"), Decimal("-0.06470895363112615"), _G],
        [
            Decimal("0.16648564323248321"),
            Decimal("0.10450018841591720"),
            Decimal("0.03631482272098715"),
            Decimal("-0.13090704451073998"),
            _G,
        ],
        _SIXTH,
        _SEVENTH,
    ],
    b=_SEVENTH,
    b_hat=[*_SIXTH, 0],
    embedded_order=4,
    source="A. Kvaerno: Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44 (2004), "
    "489-502, method 5/4a",
)
"""Kvaerno's pair of orders 5 and 4: both are stiffly accurate, the first L-stable. Its third node is 1.23."""
