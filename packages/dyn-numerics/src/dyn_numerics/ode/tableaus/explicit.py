"""The tables of the explicit Runge-Kutta methods, each with its source."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau

__all__ = ["BOSH3", "DOPRI5", "EULER", "HEUN", "MIDPOINT", "RALSTON", "RK4", "RK4_PAIR", "TSIT5"]

EULER = ButcherTableau(
    name="euler",
    order=1,
    a=[[]],
    b=[1],
    source="L. Euler: Institutionum calculi integralis I (1768), section 650",
)
"""Euler's method, order 1."""

MIDPOINT = ButcherTableau(
    name="midpoint",
    order=2,
    a=[[], [Fraction(1, 2)]],
    b=[0, 1],
    source="C. Runge: Über die numerische Auflösung von Differentialgleichungen, Math. Ann. 46 (1895), 167-178",
)
"""The explicit midpoint method, order 2."""

HEUN = ButcherTableau(
    name="heun",
    order=2,
    a=[[], [1]],
    b=[Fraction(1, 2), Fraction(1, 2)],
    source="K. Heun: Neue Methoden zur approximativen Integration, Z. Math. Phys. 45 (1900), 23-38",
)
"""Heun's method, the explicit trapezoidal rule, order 2."""

RALSTON = ButcherTableau(
    name="ralston",
    order=2,
    a=[[], [Fraction(2, 3)]],
    b=[Fraction(1, 4), Fraction(3, 4)],
    source="A. Ralston: Runge-Kutta methods with minimum error bounds, Math. Comp. 16 (1962), 431-437",
)
"""Ralston's method, order 2."""

RK4 = ButcherTableau(
    name="rk4",
    order=4,
    a=[[], [Fraction(1, 2)], [0, Fraction(1, 2)], [0, 0, 1]],
    b=[Fraction(1, 6), Fraction(1, 3), Fraction(1, 3), Fraction(1, 6)],
    source="W. Kutta: Beitrag zur näherungsweisen Integration, Z. Math. Phys. 46 (1901), 435-453",
)
"""The classical method, order 4."""

RK4_PAIR = ButcherTableau(
    name="rk4(3)",
    order=4,
    a=[*RK4.a, RK4.b],
    b=[*RK4.b, 0],
    b_hat=[*RK4.b[:3], 0, RK4.b[3]],
    embedded_order=3,
    source="the classical method; with the field at the new state in the place of the fourth stage it is of order 3",
)
"""The classical method and one of order 3 that takes one more stage, the next step's first."""

BOSH3 = ButcherTableau(
    name="bosh3",
    order=3,
    a=[
        [],
        [Fraction(1, 2)],
        [0, Fraction(3, 4)],
        [Fraction(2, 9), Fraction(1, 3), Fraction(4, 9)],
    ],
    b=[Fraction(2, 9), Fraction(1, 3), Fraction(4, 9), 0],
    b_hat=[Fraction(7, 24), Fraction(1, 4), Fraction(1, 3), Fraction(1, 8)],
    embedded_order=2,
    source="P. Bogacki, L. F. Shampine: A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2 (1989), 321-325",
)
"""Bogacki and Shampine's pair of orders 3 and 2."""

DOPRI5 = ButcherTableau(
    name="dopri5",
    order=5,
    a=[
        [],
        [Fraction(1, 5)],
        [Fraction(3, 40), Fraction(9, 40)],
        [Fraction(44, 45), Fraction(-56, 15), Fraction(32, 9)],
        [Fraction(19372, 6561), Fraction(-25360, 2187), Fraction(64448, 6561), Fraction(-212, 729)],
        [
            Fraction(9017, 3168),
            Fraction(-355, 33),
            Fraction(46732, 5247),
            Fraction(49, 176),
            Fraction(-5103, 18656),
        ],
        [
            Fraction(35, 384),
            0,
            Fraction(500, 1113),
            Fraction(125, 192),
            Fraction(-2187, 6784),
            Fraction(11, 84),
        ],
    ],
    b=[
        Fraction(35, 384),
        0,
        Fraction(500, 1113),
        Fraction(125, 192),
        Fraction(-2187, 6784),
        Fraction(11, 84),
        0,
    ],
    b_hat=[
        Fraction(5179, 57600),
        0,
        Fraction(7571, 16695),
        Fraction(393, 640),
        Fraction(-92097, 339200),
        Fraction(187, 2100),
        Fraction(1, 40),
    ],
    embedded_order=4,
    dense=[
        [
            1,
            Fraction(-8048581381, 2820520608),
            Fraction(8663915743, 2820520608),
            Fraction(-12715105075, 11282082432),
        ],
        [0, 0, 0, 0],
        [
            0,
            Fraction(131558114200, 32700410799),
            Fraction(-68118460800, 10900136933),
            Fraction(87487479700, 32700410799),
        ],
        [
            0,
            Fraction(-1754552775, 470086768),
            Fraction(14199869525, 1410260304),
            Fraction(-10690763975, 1880347072),
        ],
        [
            0,
            Fraction(127303824393, 49829197408),
            Fraction(-318862633887, 49829197408),
            Fraction(701980252875, 199316789632),
        ],
        [
            0,
            Fraction(-282668133, 205662961),
            Fraction(2019193451, 616988883),
            Fraction(-1453857185, 822651844),
        ],
        [
            0,
            Fraction(40617522, 29380423),
            Fraction(-110615467, 29380423),
            Fraction(69997945, 29380423),
        ],
    ],
    dense_order=4,
    source=(
        "J. R. Dormand, P. J. Prince: A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. 6 (1980), "
        "19-26; dense output as in Hairer, Norsett, Wanner: Solving ODEs I, section II.6 (program DOPRI5)"
    ),
)
"""Dormand and Prince's pair of orders 5 and 4, with dense output of order 4."""

TSIT5 = ButcherTableau(
    name="tsit5",
    order=5,
    a=[
        [],
        [Decimal("0.161")],
        [
            Decimal("-0.008480655492356988544426874250230774675121177393430391537369234"),
            Decimal("0.335480655492356988544426874250230774675121177393430391537369234"),
        ],
        [
            Decimal("2.897153057105493432130432594192938764924887287701866490314866693"),
            Decimal("-6.359448489975074843148159912383825625952700647415626703305928850"),
            Decimal("4.362295432869581411017727318190886861027813359713760212991062156"),
        ],
        [
            Decimal("5.325864828439256604428877920840511317836476253097040101202360397"),
            Decimal("-11.74888356406282787774717033978577296188744178259862899288666928"),
            Decimal("7.495539342889836208304604784564358155658679161518186721010132816"),
            Decimal("-0.09249506636175524925650207933207191611349983406029535244034750"),
        ],
        [
            Decimal("5.861455442946420028659251486982647890394337666164814434818157239"),
            Decimal("-12.92096931784710929170611868178335939541780751955743459166312250"),
            Decimal("8.159367898576158643180400794539253485181918321135053305748355423"),
            Decimal("-0.07158497328140099722453054252582973869127213147363544882721139"),
            Decimal("-0.02826905039406838290900305721271224146717633626879770007617876"),
        ],
        [
            Decimal("0.09646076681806522951816731316512876333711995238157997181903319"),
            Decimal("0.01"),
            Decimal("0.479889650414499574775249532290596519913040462199033248833263494"),
            Decimal("1.379008574103741893192274821856872770756462643091360525934940067"),
            Decimal("-3.290069515436080679901047585711363850115683290894936158531296799"),
            Decimal("2.324710524099773982415355918398765796109060233222962411944060046"),
        ],
    ],
    b=[
        Decimal("0.09646076681806522951816731316512876333711995238157997181903319"),
        Decimal("0.01"),
        Decimal("0.479889650414499574775249532290596519913040462199033248833263494"),
        Decimal("1.379008574103741893192274821856872770756462643091360525934940067"),
        Decimal("-3.290069515436080679901047585711363850115683290894936158531296799"),
        Decimal("2.324710524099773982415355918398765796109060233222962411944060046"),
        0,
    ],
    b_hat=[
        Decimal("0.09468075576583945807478876255758922856117527357724631226139574"),
        Decimal("0.009183565540343253096776363936645313759813746240984095238905939"),
        Decimal("0.487770528424761570785564259963122824151669195976136377436521624"),
        Decimal("1.234297566930478985655109673884237654035539930748192848315425833"),
        Decimal("-2.707712349983525454881109975059321670689605166938197378763992255"),
        Decimal("1.866628418170587035753719399566211498666255505244122593996591602"),
        Fraction(1, 66),
    ],
    embedded_order=4,
    dense=[
        [
            1,
            Decimal("-2.763706197274825911337"),
            Decimal("2.913255461821912743751"),
            Decimal("-1.0530884977290216"),
        ],
        [0, Decimal("0.1317"), Decimal("-0.2234"), Decimal("0.1017")],
        [
            0,
            Decimal("3.930296236894751528507"),
            Decimal("-5.941033872131504734702"),
            Decimal("2.490627285651252793"),
        ],
        [
            0,
            Decimal("-12.41107716693367698373"),
            Decimal("30.33818863028232159817"),
            Decimal("-16.54810288924490272"),
        ],
        [
            0,
            Decimal("37.50931341651103919497"),
            Decimal("-88.17890489476640110143"),
            Decimal("47.37952196281928122"),
        ],
        [
            0,
            Decimal("-27.896526289197287792"),
            Decimal("65.09189467479367151467"),
            Decimal("-34.87065786149660974"),
        ],
        [0, Decimal("1.5"), -4, Decimal("2.5")],
    ],
    dense_order=4,
    source=(
        "Ch. Tsitouras: Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, "
        "Comput. Math. Appl. 62 (2011), 770-775; longer digits as in OrdinaryDiffEq.jl; its factored dense weights "
        "expanded in powers of theta"
    ),
)
"""Tsitouras' pair of orders 5 and 4, with dense output of order 4."""
