"""Dormand and Prince's method of order 8 with the estimates and the dense output of Hairer's program DOP853."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau, Coefficient

__all__ = ["DOPRI8"]


def _continuous_weights(b: Sequence[Coefficient], corrections: Sequence[Sequence[Coefficient]]) -> list[list[Fraction]]:
    """The weights b_i(theta) of a cubic Hermite polynomial with corrections that vanish at both ends, twice.

    With the powers `theta, theta (1 - theta), theta^2 (1 - theta), theta^2 (1 - theta)^2, ...` DOP853 multiplies the
    rise of the step, what the slopes at its ends add to it, and four more combinations of slopes.

    Args:
        b: Weights of the solution.
        corrections: Those four combinations, each over all stages; that after the last of the step is at its end.
    """
    n = len(corrections[0])
    rise = [*(Fraction(x) for x in b), *[Fraction(0)] * (n - len(b))]
    start = [Fraction(int(i == 0)) for i in range(n)]
    end = [Fraction(int(i == len(b))) for i in range(n)]
    combinations = [
        rise,
        [k - r for k, r in zip(start, rise, strict=True)],
        [2 * r - k - m for r, k, m in zip(rise, start, end, strict=True)],
        *([Fraction(d) for d in row] for row in corrections),
    ]
    basis, powers = [Fraction(1)], []
    for i in range(len(combinations)):
        factor = [Fraction(0), Fraction(1)] if i % 2 == 0 else [Fraction(1), Fraction(-1)]  # theta, 1 - theta
        basis = _product(basis, factor)
        powers.append([*basis[1:], *[Fraction(0)] * (len(combinations) + 1 - len(basis))])
    return [
        [
            sum((w * p for w, p in zip(weights, column, strict=True)), Fraction(0))
            for column in zip(*powers, strict=True)
        ]
        for weights in zip(*combinations, strict=True)
    ]


def _product(p: Sequence[Fraction], q: Sequence[Fraction]) -> list[Fraction]:
    """The product of two polynomials, lowest power first."""
    found = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            found[i + j] += x * y
    return found


B: list[Coefficient] = [
    Decimal("5.42937341165687622380535766363e-2"),
    0,
    0,
    0,
    0,
    Decimal("4.45031289275240888144113950566"),
    Decimal("1.89151789931450038304281599044"),
    Decimal("-5.8012039600105847814672114227"),
    Decimal("3.1116436695781989440891606237e-1"),
    Decimal("-1.52160949662516078556178806805e-1"),
    Decimal("2.01365400804030348374776537501e-1"),
    Decimal("4.47106157277725905176885569043e-2"),
]

DOPRI8 = ButcherTableau(
    name="dopri8",
    order=8,
    a=[
        [],
        [Decimal("5.26001519587677318785587544488e-2")],
        [Decimal("1.97250569845378994544595329183e-2"), Decimal("5.91751709536136983633785987549e-2")],
        [Decimal("2.95875854768068491816892993775e-2"), 0, Decimal("8.87627564304205475450678981324e-2")],
        [
            Decimal("2.41365134159266685502369798665e-1"),
            0,
            Decimal("-8.84549479328286085344864962717e-1"),
            Decimal("9.24834003261792003115737966543e-1"),
        ],
        [
            Decimal("3.7037037037037037037037037037e-2"),
            0,
            0,
            Decimal("1.70828608729473871279604482173e-1"),
            Decimal("1.25467687566822425016691814123e-1"),
        ],
        [
            Decimal("3.7109375e-2"),
            0,
            0,
            Decimal("1.70252211019544039314978060272e-1"),
            Decimal("6.02165389804559606850219397283e-2"),
            Decimal("-1.7578125e-2"),
        ],
        [
            Decimal("3.70920001185047927108779319836e-2"),
            0,
            0,
            Decimal("1.70383925712239993810214054705e-1"),
            Decimal("1.07262030446373284651809199168e-1"),
            Decimal("-1.53194377486244017527936158236e-2"),
            Decimal("8.27378916381402288758473766002e-3"),
        ],
        [
            Decimal("6.24110958716075717114429577812e-1"),
            0,
            0,
            Decimal("-3.36089262944694129406857109825"),
            Decimal("-8.68219346841726006818189891453e-1"),
            Decimal("2.75920996994467083049415600797e1"),
            Decimal("2.01540675504778934086186788979e1"),
            Decimal("-4.34898841810699588477366255144e1"),
        ],
        [
            Decimal("4.77662536438264365890433908527e-1"),
            0,
            0,
            Decimal("-2.48811461997166764192642586468"),
            Decimal("-5.90290826836842996371446475743e-1"),
            Decimal("2.12300514481811942347288949897e1"),
            Decimal("1.52792336328824235832596922938e1"),
            Decimal("-3.32882109689848629194453265587e1"),
            Decimal("-2.03312017085086261358222928593e-2"),
        ],
        [
            Decimal("-9.3714243008598732571704021658e-1"),
            0,
            0,
            Decimal("5.18637242884406370830023853209"),
            Decimal("1.09143734899672957818500254654"),
            Decimal("-8.14978701074692612513997267357"),
            Decimal("-1.85200656599969598641566180701e1"),
            Decimal("2.27394870993505042818970056734e1"),
            Decimal("2.49360555267965238987089396762"),
            Decimal("-3.0467644718982195003823669022"),
        ],
        [
            Decimal("2.27331014751653820792359768449"),
            0,
            0,
            Decimal("-1.05344954667372501984066689879e1"),
            Decimal("-2.00087205822486249909675718444"),
            Decimal("-1.79589318631187989172765950534e1"),
            Decimal("2.79488845294199600508499808837e1"),
            Decimal("-2.85899827713502369474065508674"),
            Decimal("-8.87285693353062954433549289258"),
            Decimal("1.23605671757943030647266201528e1"),
            Decimal("6.43392746015763530355970484046e-1"),
        ],
    ],
    b=B,
    b_hat=[
        Decimal("0.0411736891223738815055525466763"),
        0,
        0,
        0,
        0,
        Decimal("5.67546933912861332216170925866"),
        Decimal("2.38727684897175057456422398564"),
        Decimal("-7.4655811424655713184287418377"),
        Decimal("0.66149321570779357609756479137"),
        Decimal("-0.486340068375533557585910690905"),
        Decimal("0.119442194318914635909069111371"),
        Decimal("0.0670659235916588857765328353543"),
    ],
    embedded_order=5,
    b_check=[
        Decimal("0.244094488188976377952755905512"),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        Decimal("0.733846688281611857341361741547"),
        0,
        0,
        Decimal("0.0220588235294117647058823529412"),
    ],
    check_order=3,
    dense=_continuous_weights(
        B,
        [
            [
                Decimal("-0.84289382761090128651353491142e1"),
                0,
                0,
                0,
                0,
                Decimal("0.56671495351937776962531783590"),
                Decimal("-0.30689499459498916912797304727e1"),
                Decimal("0.23846676565120698287728149680e1"),
                Decimal("0.21170345824450282767155149946e1"),
                Decimal("-0.87139158377797299206789907490"),
                Decimal("0.22404374302607882758541771650e1"),
                Decimal("0.63157877876946881815570249290"),
                Decimal("-0.88990336451333310820698117400e-01"),
                Decimal("0.18148505520854727256656404962e2"),
                Decimal("-0.91946323924783554000451984436e1"),
                Decimal("-0.44360363875948939664310572000e1"),
            ],
            [
                Decimal("0.10427508642579134603413151009e2"),
                0,
                0,
                0,
                0,
                Decimal("0.24228349177525818288430175319e3"),
                Decimal("0.16520045171727028198505394887e3"),
                Decimal("-0.37454675472269020279518312152e3"),
                Decimal("-0.22113666853125306036270938578e2"),
                Decimal("0.77334326684722638389603898808e1"),
                Decimal("-0.30674084731089398182061213626e2"),
                Decimal("-0.93321305264302278729567221706e1"),
                Decimal("0.15697238121770843886131091075e2"),
                Decimal("-0.31139403219565177677282850411e2"),
                Decimal("-0.93529243588444783865713862664e1"),
                Decimal("0.35816841486394083752465898540e2"),
            ],
            [
                Decimal("0.19985053242002433820987653617e2"),
                0,
                0,
                0,
                0,
                Decimal("-0.38703730874935176555105901742e3"),
                Decimal("-0.18917813819516756882830838328e3"),
                Decimal("0.52780815920542364900561016686e3"),
                Decimal("-0.11573902539959630126141871134e2"),
                Decimal("0.68812326946963000169666922661e1"),
                Decimal("-0.10006050966910838403183860980e1"),
                Decimal("0.77771377980534432092869265740"),
                Decimal("-0.27782057523535084065932004339e1"),
                Decimal("-0.60196695231264120758267380846e2"),
                Decimal("0.84320405506677161018159903784e2"),
                Decimal("0.11992291136182789328035130030e2"),
            ],
            [
                Decimal("-0.25693933462703749003312586129e2"),
                0,
                0,
                0,
                0,
                Decimal("-0.15418974869023643374053993627e3"),
                Decimal("-0.23152937917604549567536039109e3"),
                Decimal("0.35763911791061412378285349910e3"),
                Decimal("0.93405324183624310003907691704e2"),
                Decimal("-0.37458323136451633156875139351e2"),
                Decimal("0.10409964950896230045147246184e3"),
                Decimal("0.29840293426660503123344363579e2"),
                Decimal("-0.43533456590011143754432175058e2"),
                Decimal("0.96324553959188282948394950600e2"),
                Decimal("-0.39177261675615439165231486172e2"),
                Decimal("-0.14972683625798562581422125276e3"),
            ],
        ],
    ),
    dense_order=7,
    a_dense=[
        [
            Decimal("5.61675022830479523392909219681e-2"),
            0,
            0,
            0,
            0,
            0,
            Decimal("2.53500210216624811088794765333e-1"),
            Decimal("-2.46239037470802489917441475441e-1"),
            Decimal("-1.24191423263816360469010140626e-1"),
            Decimal("1.5329179827876569731206322685e-1"),
            Decimal("8.20105229563468988491666602057e-3"),
            Decimal("7.56789766054569976138603589584e-3"),
            Decimal("-8.298e-3"),
        ],
        [
            Decimal("3.18346481635021405060768473261e-2"),
            0,
            0,
            0,
            0,
            Decimal("2.83009096723667755288322961402e-2"),
            Decimal("5.35419883074385676223797384372e-2"),
            Decimal("-5.49237485713909884646569340306e-2"),
            0,
            0,
            Decimal("-1.08347328697249322858509316994e-4"),
            Decimal("3.82571090835658412954920192323e-4"),
            Decimal("-3.40465008687404560802977114492e-4"),
            Decimal("1.41312443674632500278074618366e-1"),
        ],
        [
            Decimal("-4.28896301583791923408573538692e-1"),
            0,
            0,
            0,
            0,
            Decimal("-4.69762141536116384314449447206"),
            Decimal("7.68342119606259904184240953878"),
            Decimal("4.06898981839711007970213554331"),
            Decimal("3.56727187455281109270669543021e-1"),
            0,
            0,
            0,
            Decimal("-1.39902416515901462129418009734e-3"),
            Decimal("2.9475147891527723389556272149"),
            Decimal("-9.15095847217987001081870187138"),
        ],
    ],
    source=(
        "P. J. Prince, J. R. Dormand: High order embedded Runge-Kutta formulae, J. Comput. Appl. Math. 7 (1981), 67-75; "
        "estimates and dense output: E. Hairer, S. P. Norsett, G. Wanner: Solving ODEs I, 2nd ed. (1993), sections II.5 "
        "(10.15) and II.6, program DOP853"
    ),
)
"""Dormand and Prince's method of order 8, with estimates of orders 5 and 3; its dense output takes three more stages."""
