"""The tables of the implicit-explicit Runge-Kutta methods, each with its source."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from dyn_numerics.ode.tableaus.additive_tableau import AdditiveTableau
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau, Coefficient

__all__ = ["KENCARP4"]

_SOURCE = (
    "C. A. Kennedy, M. H. Carpenter: Additive Runge-Kutta schemes for convection-diffusion-reaction equations, Applied "
    "Numerical Mathematics 44 (2003), 139-181, appendix C, ARK4(3)6L[2]SA"
)
_GAMMA = Fraction(1, 4)
_B: list[Coefficient] = [
    Fraction(82889, 524892),
    0,
    Fraction(15625, 83664),
    Fraction(69875, 102672),
    Fraction(-2260, 8211),
    _GAMMA,
]
_B_HAT: list[Coefficient] = [
    Fraction(4586570599, 29645900160),
    0,
    Fraction(178811875, 945068544),
    Fraction(814220225, 1159782912),
    Fraction(-3700637, 11593932),
    Fraction(61727, 225920),
]


def _rounded(numerator: int, denominator: int) -> Decimal:
    """A fraction that was published in the place of another number."""
    return Decimal(numerator) / denominator


KENCARP4 = AdditiveTableau(
    implicit=ButcherTableau(
        name="kencarp4",
        order=4,
        a=[
            [],
            [_GAMMA, _GAMMA],
            [Fraction(8611, 62500), Fraction(-1743, 31250), _GAMMA],
            [Fraction(5012029, 34652500), Fraction(-654441, 2922500), Fraction(174375, 388108), _GAMMA],
            [
                Fraction(15267082809, 155376265600),
                Fraction(-71443401, 120774400),
                Fraction(730878875, 902184768),
                Fraction(2285395, 8070912),
                _GAMMA,
            ],
            _B,
        ],
        b=_B,
        b_hat=_B_HAT,
        embedded_order=3,
        source=_SOURCE,
    ),
    explicit=ButcherTableau(
        name="kencarp4, explicit part",
        order=4,
        a=[
            [],
            [Fraction(1, 2)],
            [Fraction(13861, 62500), Fraction(6889, 62500)],
            [
                _rounded(-116923316275, 2393684061468),
                _rounded(-2731218467317, 15368042101831),
                _rounded(9408046702089, 11113171139209),
            ],
            [
                _rounded(-451086348788, 2902428689909),
                _rounded(-2682348792572, 7519795681897),
                _rounded(12662868775082, 11960479115383),
                _rounded(3355817975965, 11060851509271),
            ],
            [
                _rounded(647845179188, 3216320057751),
                _rounded(73281519250, 8382639484533),
                _rounded(552539513391, 3454668386233),
                _rounded(3354512671639, 8306763924573),
                Fraction(4040, 17871),
            ],
        ],
        b=_B,
        b_hat=_B_HAT,
        embedded_order=3,
        source=_SOURCE,
    ),
)
"""Kennedy and Carpenter's pair of pairs of orders 4 and 3, the implicit one stiffly accurate and L-stable."""
