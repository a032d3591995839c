"""Systems of equations of the collection of Moré, Garbow and Hillstrom.

Those with as many equations as unknowns: the fourteen that MINPACK tests its solvers with, and more. Where the collection
has more equations (Wood, Watson, variably dimensioned), the gradient of the sum of their squares takes their place, as in
MINPACK. Numbers of problems in `source` are those of the collection.

Example:
    >>> from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
    >>> system = MORE_GARBOW_HILLSTROM["Powell singular"]
    >>> system.function(system.z0).square().sum().round()
    tensor(215., dtype=torch.float64)

References:
    - J. J. Moré, B. S. Garbow, K. E. Hillstrom: Testing unconstrained optimization software, ACM Transactions on
      Mathematical Software 7 (1981), 17-41.
    - J. J. Moré, B. S. Garbow, K. E. Hillstrom: User guide for MINPACK-1, Argonne National Laboratory report
      ANL-80-74 (1980).
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor
from torch.nn.functional import pad

from dyn_bench.problems.root.nonlinear_system import NonlinearSystem

__all__ = ["MORE_GARBOW_HILLSTROM"]

# Roots without a closed form were computed with mpmath, by Newton's method in 60 digits, and rounded once. That there are
# no others follows by elimination where nothing else is said.


def _counts(z: Tensor) -> Tensor:
    """The numbers from 1 to N."""
    return torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)


def _neighbours(z: Tensor) -> tuple[Tensor, Tensor]:
    """What precedes and follows each unknown, with 0 beyond the ends."""
    padded = pad(z, (1, 1))
    return padded[..., :-2], padded[..., 2:]


def _rosenbrock(z: Tensor) -> Tensor:
    a, b = z[..., 0::2], z[..., 1::2]
    return torch.stack([10 * (b - a * a), 1 - a], -1).flatten(-2)


def _freudenstein_roth(z: Tensor) -> Tensor:
    a, b = z.unbind(-1)
    return torch.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b], -1)


def _powell_badly_scaled(z: Tensor) -> Tensor:
    a, b = z.unbind(-1)
    return torch.stack([1e4 * a * b - 1, torch.exp(-a) + torch.exp(-b) - 1.0001], -1)


def _helical_valley(z: Tensor) -> Tensor:
    a, b, c = z.unbind(-1)
    turns = 0.25 + torch.atan2(-a, b) / (2 * pi)  # from -1/4 to 3/4: they jump below the origin, not at the start
    return torch.stack([10 * (c - 10 * turns), 10 * (torch.hypot(a, b) - 1), c], -1)


def _powell_singular(z: Tensor) -> Tensor:
    a, b, c, d = (z[..., i::4] for i in range(4))
    return torch.stack([a + 10 * b, sqrt(5) * (c - d), (b - 2 * c) ** 2, sqrt(10) * (a - d) ** 2], -1).flatten(-2)


def _wood(z: Tensor) -> Tensor:
    a, b, c, d = z.unbind(-1)
    u, v = b - a * a, d - c * c
    return torch.stack(
        [
            -200 * a * u - (1 - a),
            200 * u + 20.2 * (b - 1) + 19.8 * (d - 1),
            -180 * c * v - (1 - c),
            180 * v + 20.2 * (d - 1) + 19.8 * (b - 1),
        ],
        -1,
    )


def _watson(z: Tensor) -> Tensor:
    n = z.shape[-1]
    t = torch.arange(1, 30, dtype=z.dtype, device=z.device).unsqueeze(-1) / 29
    powers = t ** (_counts(z) - 1)  # [29, n]
    slopes = (_counts(z) - 1) * powers / t
    value = z @ powers.T  # [..., 29]
    residual = z @ slopes.T - value * value - 1
    a, b = z[..., 0], z[..., 1] - z[..., 0] ** 2 - 1
    return residual @ slopes - 2 * (residual * value) @ powers + pad(torch.stack([a - 2 * a * b, b], -1), (0, n - 2))


def _variably_dimensioned(z: Tensor) -> Tensor:
    i = _counts(z)
    weighted = (i * (z - 1)).sum(-1, keepdim=True)
    return z - 1 + i * (weighted + 2 * weighted**3)


def _trigonometric(z: Tensor) -> Tensor:
    versine = 2 * torch.sin(z / 2) ** 2  # 1 - cos z, without loss of digits next to the root at 0
    return versine.sum(-1, keepdim=True) + _counts(z) * versine - torch.sin(z)


def _brown_almost_linear(z: Tensor) -> Tensor:
    linear = z[..., :-1] + z.sum(-1, keepdim=True) - (z.shape[-1] + 1)
    return torch.cat([linear, z.prod(-1, keepdim=True) - 1], -1)


def _discrete_boundary_value(z: Tensor) -> Tensor:
    before, after = _neighbours(z)
    h = 1 / (z.shape[-1] + 1)
    return 2 * z - before - after + h * h / 2 * (z + h * _counts(z) + 1) ** 3


def _discrete_integral_equation(z: Tensor) -> Tensor:
    h = 1 / (z.shape[-1] + 1)
    t = h * _counts(z)
    cubes = (z + t + 1) ** 3
    left, right = t * cubes, (1 - t) * cubes
    after = right.sum(-1, keepdim=True) - right.cumsum(-1)
    return z + h / 2 * ((1 - t) * left.cumsum(-1) + t * after)


def _broyden_tridiagonal(z: Tensor) -> Tensor:
    before, after = _neighbours(z)
    return (3 - 2 * z) * z - before - 2 * after + 1


def _broyden_banded(z: Tensor) -> Tensor:
    n = z.shape[-1]
    terms = pad(z * (1 + z), (5, 1))
    band = torch.stack([terms[..., k : k + n] for k in (0, 1, 2, 3, 4, 6)]).sum(0)  # five before and one after
    return z * (2 + 5 * z * z) + 1 - band


def _chebyquad(z: Tensor) -> Tensor:
    shifted = 2 * z - 1
    last, polynomial = torch.ones_like(z), shifted
    means = []
    for degree in range(1, z.shape[-1] + 1):
        integral = 0.0 if degree % 2 else 1 / (1 - degree**2)
        means.append(polynomial.mean(-1) - integral)
        last, polynomial = polynomial, 2 * shifted * polynomial - last
    return torch.stack(means, -1)


def _sorted(z: Tensor) -> Tensor:
    return z.sort(-1).values


def _within_a_turn(z: Tensor) -> Tensor:
    return z - 2 * pi * torch.round(z / (2 * pi))


def _chebyquad_system(*roots: float) -> NonlinearSystem:
    n = len(roots)
    return NonlinearSystem(
        name=f"Chebyquad {n}",
        function=_chebyquad,
        start=tuple(i / (n + 1) for i in range(1, n + 1)),
        solutions=(roots,),
        source="problem 35; one root, but for the order of its numbers",
        canonical=_sorted,
    )


# The trapezoidal rule, which makes the integral equation one of these, inverts second differences: both have one root.
_BOUNDARY_VALUE_START = tuple(i / 11 * (i / 11 - 1) for i in range(1, 11))
_BOUNDARY_VALUE_ROOT = (
    *(-0.04316498251876487, -0.08157715653538689, -0.11448571438052929, -0.14097357686259668, -0.1599086961819831),
    *(-0.16987720231277492, -0.16908998378120835, -0.15524953522183182, -0.125355891678935, -0.07541653368589209),
)

_SYSTEMS = (
    NonlinearSystem("Rosenbrock", _rosenbrock, (-1.2, 1.0), ((1.0, 1.0),), "problem 1"),
    NonlinearSystem("extended Rosenbrock", _rosenbrock, (-1.2, 1.0) * 5, ((1.0,) * 10,), "problem 21, n = 10"),
    NonlinearSystem(
        name="Freudenstein-Roth",
        function=_freudenstein_roth,
        start=(0.5, -2.0),
        solutions=((5.0, 4.0),),
        source="problem 2; |g|^2 has a local minimum of 48.98, where methods end that only descend from the start",
        traps=(((53 - 4 * sqrt(22)) / 3, (2 - sqrt(22)) / 3),),
    ),
    NonlinearSystem(
        name="Powell badly scaled",
        function=_powell_badly_scaled,
        start=(0.0, 1.0),
        solutions=((1.0981593296998175e-05, 9.106146739866524), (9.106146739866524, 1.0981593296998175e-05)),
        source="problem 3; unknowns may be exchanged, so that there are two roots",
    ),
    NonlinearSystem("helical valley", _helical_valley, (-1.0, 0.0, 0.0), ((1.0, 0.0, 0.0),), "problem 7"),
    NonlinearSystem(
        name="Powell singular",
        function=_powell_singular,
        start=(3.0, -1.0, 0.0, 1.0),
        solutions=((0.0,) * 4,),
        source="problem 13; the Jacobian has rank 2 at the root",
        singular=True,
    ),
    NonlinearSystem(
        name="extended Powell singular",
        function=_powell_singular,
        start=(3.0, -1.0, 0.0, 1.0) * 3,
        solutions=((0.0,) * 12,),
        source="problem 22, n = 12; the Jacobian has rank 6 at the root",
        singular=True,
    ),
    NonlinearSystem(
        name="Wood",
        function=_wood,
        start=(-3.0, -1.0, -3.0, -1.0),
        solutions=(
            (1.0, 1.0, 1.0, 1.0),
            (-0.9679740249375931, 0.9471391408178418, -0.9695163103315911, 0.9512476657923252),
            (-0.03125102339433596, 0.16597138685578314, -0.031258171023264066, 0.18426393469672842),
        ),
        source="problem 14, its gradient as in MINPACK, which halves two components; two of the three roots are saddles",
    ),
    NonlinearSystem(
        name="Watson 6",
        function=_watson,
        start=(0.0,) * 6,
        solutions=(
            (
                *(-0.015725086401458456, 1.0124348693691099, -0.2329916259567377),
                *(1.2604300877996084, -1.5137289227222797, 0.9929964324311346),
            ),
        ),
        source="problem 20, half its gradient as in MINPACK; no other root from 9000 starts",
    ),
    NonlinearSystem(
        name="Watson 9",
        function=_watson,
        start=(0.0,) * 9,
        solutions=(
            (
                *(-1.5307036521394342e-05, 0.9997897039319483, 0.014763963693556958),
                *(0.14634232829936222, 1.0008211030047092, -2.617731140519015),
                *(4.104403164478857, -3.1436122785564424, 1.0526264080101668),
            ),
        ),
        source="problem 20, half its gradient as in MINPACK; no other root from 9000 starts",
    ),
    NonlinearSystem(
        name="variably dimensioned",
        function=_variably_dimensioned,
        start=tuple(1 - i / 10 for i in range(1, 11)),
        solutions=((1.0,) * 10,),
        source="problem 25, n = 10, half its gradient as in MINPACK",
    ),
    NonlinearSystem(
        name="trigonometric",
        function=_trigonometric,
        start=(0.1,) * 10,
        solutions=(
            (0.0,) * 10,
            (
                *(0.017821656110974752, 0.017986382226277655, 0.018157433958787626, 0.018335285059346767),
                *(0.018520464481273567, 0.018713565371352957, 0.018915255985870367, 0.019126293052753096),
                *(0.019347538274518787, 0.1797573260720426),
            ),
            (
                *(0.02198255745205339, 0.02223540544598851, 0.02250045235981281, 0.022778858090716975),
                *(0.023071956093013463, 0.0233812901377469, 0.023708661450750266, 0.024056189991357457),
                *(0.196888047005384, 0.02482230534653306),
            ),
            (
                *(0.0343962889257372, 0.0350323157413494, 0.035719195825958, 0.03646522421825092),
                *(0.0372809117388555, 0.03817986254748341, 0.039180141082453365, 0.040306502644077015),
                *(0.1797201916971708, 0.15624088142700163),
            ),
            (
                *(0.02796488064281357, 0.028379389000325054, 0.028820039302621257, 0.02929013308107179),
                *(0.02979363996042134, 0.030335392981580996, 0.030921361853576596, 0.21715094393627243),
                *(0.032258050453606454, 0.033030983522077735),
            ),
            (
                *(0.039268696601079296, 0.04010677845215236, 0.04102319396548145, 0.04203310941381255),
                *(0.04315658956425918, 0.04442099814989453, 0.04586510429246465, 0.20116336522723174),
                *(0.04955743844807959, 0.14727864453617018),
            ),
            (
                *(0.04296456438226681, 0.04397628747818689, 0.045093397949095324, 0.046338916246171875),
                *(0.047744381782826445, 0.049354732513297105, 0.051237348500766194, 0.19520946391411598),
                *(0.16497766527617533, 0.06014857783799328),
            ),
            (
                *(0.04791194730372715, 0.049184518166637436, 0.05060870289457072, 0.05222304938978842),
                *(0.054083092294858734, 0.05627330346630052, 0.058932138535340545, 0.18639700138447557),
                *(0.15434196040113907, 0.12462537696307192),
            ),
            (
                *(0.037458370394096045, 0.03821785822288099, 0.039044462663467054, 0.03995039884795604),
                *(0.04095156433022458, 0.04206920835865987, 0.2404614234028174, 0.04478428508933327),
                *(0.04648838481143236, 0.04855077273631961),
            ),
            (
                *(0.046495191107614464, 0.04768968368136957, 0.049021271079534225, 0.05052335948250633),
                *(0.052243367880800806, 0.054252024079504454, 0.22713197545417682, 0.05967181777795895),
                *(0.06368644129308151, 0.12952160929189768),
            ),
        ),
        source="problem 26, n = 10; ten roots but for whole turns, and a local minimum of |g|^2 of 2.795e-5",
        traps=(
            (
                *(0.05515090398069129, 0.05684061679473856, 0.058764001762695084, 0.06099060865676081),
                *(0.06362621369585451, 0.06684317945275879, 0.20816151856988116, 0.16436309588564774),
                *(0.08500689568850744, 0.09143145071470794),
            ),
        ),
        canonical=_within_a_turn,
    ),
    NonlinearSystem(
        name="Brown almost-linear",
        function=_brown_almost_linear,
        start=(0.5,) * 10,
        solutions=((1.0,) * 10, (*(0.9794303033498625,) * 9, 1.2056969665013755)),
        source="problem 27, n = 10; two roots, and |g|^2 is 1 and flat at the point named besides",
        traps=((*(0.0,) * 9, 11.0),),
    ),
    NonlinearSystem(
        name="discrete boundary value",
        function=_discrete_boundary_value,
        start=_BOUNDARY_VALUE_START,
        solutions=(_BOUNDARY_VALUE_ROOT,),
        source="problem 28, n = 10",
    ),
    NonlinearSystem(
        name="discrete integral equation",
        function=_discrete_integral_equation,
        start=_BOUNDARY_VALUE_START,
        solutions=(_BOUNDARY_VALUE_ROOT,),
        source="problem 29, n = 10",
    ),
    NonlinearSystem(
        name="Broyden tridiagonal",
        function=_broyden_tridiagonal,
        start=(-1.0,) * 10,
        solutions=(
            (
                *(-0.5707221320112248, -0.681806949984275, -0.7022100760176601, -0.7055106298950804),
                *(-0.7049061557287437, -0.7014966070298512, -0.6918893223547983, -0.6657965144058537),
                *(-0.5960351090263657, -0.4164122575286934),
            ),
            (
                *(1.8326004012611672, -0.10952362881084006, -0.5925810691147383, -0.6852621127398537),
                *(-0.7011867977090994, -0.7008120654752639, -0.6917622504740516, -0.66577235415437),
                *(-0.596030233550781, -0.41641121255558516),
            ),
        ),
        source="problem 30, n = 10; two roots, as its first unknown says, of which the rest is a function",
    ),
    NonlinearSystem(
        name="Broyden banded",
        function=_broyden_banded,
        start=(-1.0,) * 10,
        solutions=(
            (
                *(-0.4283028635872503, -0.47659642435629024, -0.5196524636468617, -0.5580993248321809),
                *(-0.5925061568294574, -0.624503682199468, -0.6232394714405911, -0.6213938417965735),
                *(-0.6204535966590874, -0.5864692707204351),
            ),
        ),
        source="problem 31, n = 10; no other root from 9000 starts",
    ),
    _chebyquad_system(
        *(0.08375125649950906, 0.31272929522320947, 0.5, 0.6872707047767905, 0.9162487435004909),
    ),
    _chebyquad_system(
        *(0.0668765909460897, 0.28874067311944424, 0.36668229924164764),
        *(0.6333177007583524, 0.7112593268805558, 0.9331234090539103),
    ),
    _chebyquad_system(
        *(0.05806914962097548, 0.2351716123574216, 0.3380440947400462, 0.5),
        *(0.6619559052599538, 0.7648283876425784, 0.9419308503790245),
    ),
    _chebyquad_system(
        *(0.044205346135782767, 0.19949067230988096, 0.23561910847106, 0.416046907892598, 0.5),
        *(0.583953092107402, 0.76438089152894, 0.8005093276901191, 0.9557946538642172),
    ),
)

MORE_GARBOW_HILLSTROM = {system.name: system for system in _SYSTEMS}
"""The systems by name, which ends in the number of unknowns where a family comes in several sizes."""
