"""The coefficients of the splitting methods, each with its source."""

from __future__ import annotations

from decimal import Context, Decimal

from dyn_numerics.ode.tableaus.symmetric_composition import SymmetricComposition

__all__ = ["VERLET", "YOSHIDA4"]

VERLET = SymmetricComposition(
    name="verlet",
    order=2,
    lengths=[1],
    outer="b",
    source="L. Verlet: Computer experiments on classical fluids I, Phys. Rev. 159 (1967), 98-103",
)
"""Verlet's method, order 2; the force is the outer part, so that a step ends with that of the next one."""

_DIGITS = Context(prec=50)
_ENDS = _DIGITS.divide(Decimal(1), _DIGITS.subtract(Decimal(2), _DIGITS.power(Decimal(2), _DIGITS.divide(1, 3))))

YOSHIDA4 = SymmetricComposition(
    name="yoshida4",
    order=4,
    lengths=[_ENDS, _DIGITS.subtract(Decimal(1), _DIGITS.multiply(Decimal(2), _ENDS)), _ENDS],
    outer="a",
    source="H. Yoshida: Construction of higher order symplectic integrators, Phys. Lett. A 150 (1990), 262-268, eq. (2.11)",
)
"""Yoshida's method, order 4. Of its three steps the middle one goes back; the force, the inner part, stays within."""
