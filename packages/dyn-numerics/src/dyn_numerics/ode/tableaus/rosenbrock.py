"""Tables of Rosenbrock methods."""

from __future__ import annotations

from decimal import Decimal, localcontext

from dyn_numerics.ode.tableaus.butcher_tableau import DIGITS
from dyn_numerics.ode.tableaus.rosenbrock_tableau import RosenbrockTableau

__all__ = ["RODAS5P", "ROSENBROCK23"]


def _rosenbrock23() -> RosenbrockTableau:
    root = Decimal(2).sqrt()
    d, e = 1 / (2 + root), 6 + root
    third, sixth = 1 / Decimal(3), 1 / Decimal(6)
    share = 1 / (1 - 2 * d)
    return RosenbrockTableau(
        name="rosenbrock23",
        order=2,
        alpha=[[], [Decimal("0.5")], [0, 1]],
        gamma=[[d], [-d, d], [d * (e - 2), -d * e, d]],
        b=[0, 1, 0],
        b_hat=[sixth, 2 * third, sixth],
        embedded_order=3,
        dense=[[share, -share], [-2 * d * share, share], [0, 0]],
        dense_order=2,
        source="L. F. Shampine, M. W. Reichelt: The MATLAB ODE suite (1997)",
    )


def _rodas5p() -> RosenbrockTableau:
    last = _decimals(
        "-7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256 0.030198172008377946"
    )
    b = [*last, *[Decimal(1)] * 3]
    # The solution at theta is x0 + theta (x1 - x0 + (1 - theta) (h1 + theta (h2 + theta h3))).
    h1 = _decimals(
        "25.948786856663858 -2.5579724845846235 10.433815404888879 -2.3679251022685204 0.524948541321073 "
        "1.1241088310450404 0.4272876194431874 -0.17202221070155493"
    )
    h2 = _decimals(
        "-9.91568850695171 -0.9689944594115154 3.0438037242978453 -24.495224566215796 20.176138334709044 "
        "15.98066361424651 -6.789040303419874 -6.710236069923372"
    )
    h3 = _decimals(
        "11.419903575922262 2.8879645146136994 72.92137995996029 80.12511834622643 -52.072871366152654 "
        "-59.78993625266729 -0.15582684282751913 4.883087185713722"
    )
    return RosenbrockTableau.from_transformed(
        name="rodas5p",
        order=5,
        gamma=Decimal("0.21193756319429014"),
        a=[
            [],
            _decimals("3"),
            _decimals("2.849394379747939 0.45842242204463923"),
            _decimals("-6.954028509809101 2.489845061869568 -10.358996098473584"),
            _decimals("2.8029986275628964 0.5072464736228206 -0.3988312541770524 -0.04721187230404641"),
            b[:5],
            b[:6],
            b[:7],
        ],
        c=[
            [],
            _decimals("-14.155112264123755"),
            _decimals("-17.97296035885952 -2.859693295451294"),
            _decimals("147.12150275711716 -1.41221402718213 71.68940251302358"),
            _decimals("165.43517024871676 -0.4592823456491126 42.90938336958603 -5.961986721573306"),
            _decimals("24.854864614690072 -3.0009227002832186 47.4931110020768 5.5814197821558125 -0.6610691825249471"),
            _decimals(
                "30.91273214028599 -3.1208243349937974 77.79954646070892 34.28646028294783 -19.097331116725623 "
                "-28.087943162872662"
            ),
            _decimals(
                "37.80277123390563 -3.2571969029072276 112.26918849496327 66.9347231244047 -40.06618937091002 "
                "-54.66780262877968 -9.48861652309627"
            ),
        ],
        b=b,
        b_hat=[*b[:7], Decimal(0)],
        embedded_order=4,
        dense=[[weight + x, y - x, z - y, -z] for weight, x, y, z in zip(b, h1, h2, h3, strict=True)],
        dense_order=4,
        source="G. Steinebach: Construction of Rosenbrock-Wanner method Rodas5P (2023)",
    )


def _decimals(text: str) -> list[Decimal]:
    return [Decimal(number) for number in text.split()]


with localcontext(DIGITS):
    ROSENBROCK23 = _rosenbrock23()
    RODAS5P = _rodas5p()
