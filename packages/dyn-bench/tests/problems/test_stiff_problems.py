"""Stiff problems against published formulas, solutions and closed forms."""

import itertools

import pytest
import torch
from torch.func import jacfwd, vmap

from dyn_bench.problems.brusselator import Brusselator
from dyn_bench.problems.hires import HIRES, HIRES_TO_322
from dyn_bench.problems.orego import OREGO_TO_360, Oregonator
from dyn_bench.problems.pollu import POLLU, POLLU_TO_60
from dyn_bench.problems.prothero_robinson import ProtheroRobinson
from dyn_bench.problems.reaction_network import ReactionNetwork
from dyn_bench.problems.rober import ROBER, ROBER_TO_1E11
from dyn_bench.problems.scaled_van_der_pol import SCALED_VAN_DER_POL_TO_2, ScaledVanDerPol
from dyn_bench.problems.van_der_pol import VAN_DER_POL_TO_2000, VanDerPol
from dyn_bench.protocols.solve import dyn_solve, values_of
from dyn_numerics import odeint

T0 = torch.tensor(0.0, dtype=torch.float64)
PROBLEMS = [
    ROBER_TO_1E11,
    HIRES_TO_322,
    OREGO_TO_360,
    VAN_DER_POL_TO_2000,
    SCALED_VAN_DER_POL_TO_2,
    POLLU_TO_60,
]


def states(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rober(x, k):
    (a, b, c), (k1, k2, k3) = x.unbind(-1), k.unbind(-1)
    return [-k1 * a + k2 * b * c, k1 * a - k2 * b * c - k3 * b * b, k3 * b * b]


def hires(x):
    a, b, c, d, e, f, g, h = x.unbind(-1)
    return [
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -280 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        280 * f * h - 1.81 * g,
        -280 * f * h + 1.81 * g,
    ]


def test_rober_by_its_formula_with_rates_of_every_sample():
    x, k = states(5, 3), ROBER.perturbed_rates(5, share=0.2, seed=1)
    torch.testing.assert_close(ROBER(T0, x, k), torch.stack(rober(x, k), -1))
    torch.testing.assert_close(ROBER(T0, x), torch.stack(rober(x, torch.tensor([0.04, 1e4, 3e7]).double()), -1))


def test_hires_by_its_formula():
    x = states(5, 8)
    torch.testing.assert_close(HIRES(T0, x), torch.stack(hires(x), -1))


def test_what_pollu_conserves():
    """Nitrogen goes nowhere but from species to species; sulphur and what the reactions lose do as published."""
    slopes = dict(zip(POLLU.species, POLLU(T0, states(20)), strict=True))
    nitrogen = sum(slopes[name] for name in ("NO2", "NO", "PAN", "HNO3", "NO3")) + 2 * slopes["N2O5"]
    scale = max(abs(slope) for slope in slopes.values())
    assert abs(nitrogen) < 1e-12 * scale
    assert slopes["SO2"] == -slopes["SO4"] != 0
    carbon = sum(slopes[name] for name in ("HCHO", "CO"))  # what methyl peroxide brings in stays formaldehyde or CO
    x = states(20)
    gains = 1.88 * x[13] + 1.3e-4 * x[8]
    torch.testing.assert_close(carbon, gains)


def test_perturbed_rates_are_uniform_within_their_share():
    rates = ROBER.perturbed_rates(10_000, share=0.2, seed=0) / torch.tensor(ROBER.rates, dtype=torch.float64)
    assert 0.8 <= rates.min() < 0.801
    assert 1.199 < rates.max() <= 1.2
    torch.testing.assert_close(rates.mean(0), torch.ones(3).double(), atol=5e-3, rtol=0)
    assert not torch.equal(rates[:, 0], rates[:, 1])
    assert torch.equal(ROBER.perturbed_rates(3, 0.2, seed=0), ROBER.perturbed_rates(3, 0.2, seed=0))
    assert not torch.equal(ROBER.perturbed_rates(3, 0.2, seed=0), ROBER.perturbed_rates(3, 0.2, seed=1))


@pytest.mark.parametrize(
    ("equation", "word"), [("A + B", "'A \\+ B', expected what becomes what"), ("A -> X", "'X', expected one of A, B")]
)
def test_reactions_that_are_none(equation, word):
    with pytest.raises(ValueError, match=f"^reactions: got.*{word}"):
        ReactionNetwork(("A", "B"), ("A -> B", 1.0), (equation, 1.0))


FIELDS = [
    *(
        (network, (n,), (states(n) * 2, torch.tensor(network.rates).double()))
        for network, n in ((ROBER, 3), (POLLU, 20))
    ),
    (HIRES, (8,), (states(8),)),
    (Oregonator(), (3,), (states(3) * 5,)),
    (VanDerPol(mu=3.0), (2,), (states(2),)),
    (VanDerPol(mu=3.0), (2,), (states(2), torch.tensor(7.0).double())),
    (ScaledVanDerPol(eps=0.1), (2,), (states(2),)),
    (ScaledVanDerPol(eps=0.1), (2,), (states(2), torch.tensor(0.3).double())),
]


@pytest.mark.parametrize(("field", "shape", "numbers"), FIELDS, ids=itertools.count())
def test_partials_are_the_jacobian(field, shape, numbers):
    x, *args = numbers
    expected = jacfwd(lambda x: field(T0, x, *args))(x)
    given = [number for array in numbers for number in array.flatten().tolist()]
    torch.testing.assert_close(torch.tensor(field.partials(*given), dtype=torch.float64), expected)
    torch.testing.assert_close(torch.tensor(field.components(*given), dtype=torch.float64), field(T0, x, *args))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_published_solutions_are_reached(problem):
    """To the tolerance: a network that is copied wrong in one place ends elsewhere."""
    solve = dyn_solve(problem.field, problem.x0, problem.times(), tolerance=1e-7, floor=problem.floor, solver="rodas5p")
    assert problem.error(values_of(solve)[-1]) < 2e-7


def test_both_forms_of_van_der_pol_s_oscillator_are_the_same():
    mu, x = torch.tensor([2.0, 30.0]).double(), states(2, 2)
    scaled = torch.stack([x[:, 0], mu * x[:, 1]], -1)
    unscaled = mu.unsqueeze(-1) * VanDerPol(mu)(T0, x)
    found = ScaledVanDerPol(1.0)(T0, scaled, mu**-2)
    torch.testing.assert_close(found, torch.stack([unscaled[:, 0], mu * unscaled[:, 1]], -1))
    torch.testing.assert_close(found, ScaledVanDerPol(mu**-2)(T0, scaled))


def test_the_oregonator_by_hand():
    x = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    expected = [77.27 * (3 + 2 * (1 - 8.375e-6 * 2 - 3)), (5 - 3 * 3) / 77.27, 0.161 * (2 - 5)]
    torch.testing.assert_close(Oregonator()(T0, x), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("rate", [-2.0, torch.tensor([-0.5, -3.0], dtype=torch.float64)], ids=["one", "each"])
def test_prothero_and_robinson_s_problem_has_its_solution(rate):
    problem, t = ProtheroRobinson(rate), torch.linspace(0.5, 4, 6, dtype=torch.float64)
    x0 = torch.full((2,), 0.5, dtype=torch.float64).sin()
    x = odeint(problem, x0, t, rtol=1e-10, atol=1e-10).x
    torch.testing.assert_close(x, problem.solution(t).unsqueeze(-1).expand(-1, 2), atol=1e-9, rtol=0)
    off = odeint(problem, x0 + 1, t, rtol=1e-10, atol=1e-10).x - x  # neighbours come closer at the rate
    torch.testing.assert_close(off[-1], torch.exp(torch.as_tensor(rate).double() * 3.5).expand(2), atol=1e-8, rtol=0)


def test_the_brusselator_rests_where_it_should():
    problem = Brusselator(points=7, a=1.5, b=2.0)
    rest = torch.tensor([1.5, 2 / 1.5], dtype=torch.float64).expand(4, 7, 2)
    torch.testing.assert_close(problem(T0, rest), torch.zeros(4, 7, 2).double(), atol=1e-13, rtol=0)


def test_the_brusselator_s_diffusion_is_of_second_order():
    errors = []
    for points in (20, 41, 83):
        problem = Brusselator(points)
        y = problem.places
        x = torch.stack([1 + torch.sin(3 * torch.pi * y), 3 + y * (1 - y)], -1)
        u, v = x.unbind(-1)
        second = torch.stack([-((3 * torch.pi) ** 2) * torch.sin(3 * torch.pi * y), torch.full_like(y, -2.0)], -1)
        reaction = torch.stack([1 + u * u * v - 4 * u, 3 * u - u * u * v], -1)
        error = problem(T0, x) - (reaction + 0.02 * second)
        torch.testing.assert_close(error[:, 1], torch.zeros_like(y), atol=1e-10, rtol=0)  # a parabola has no error
        errors.append(error[:, 0].abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.03)  # points at half the distance
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.03)


def test_the_brusselator_s_preconditioner_inverts_its_diffusion():
    problem, shift = Brusselator(points=6, diffusion=0.3), torch.tensor([0.01, 2.0], dtype=torch.float64)
    x, v = states(2, 12), states(2, 12, seed=1)
    still = Brusselator(points=6, diffusion=0.0)

    def diffused(x):
        x = x.unflatten(-1, (6, 2))
        return (problem(T0, x) - still(T0, x)).flatten(-2)

    moved = torch.func.jvp(diffused, (x,), (v,))[1]
    found = problem.precondition(T0.expand(2), x, shift)(v - shift.unsqueeze(-1) * moved)
    torch.testing.assert_close(found, v)


def test_the_brusselator_takes_many_samples():
    problem = Brusselator(points=5)
    x = states(3, 5, 2)
    torch.testing.assert_close(problem(T0, x), vmap(lambda x: problem(T0, x))(x))
    assert problem.x0[:, 0].tolist() == pytest.approx(
        [1 + 3**0.5 / 2, 1 + 3**0.5 / 2, 1, 1 - 3**0.5 / 2, 1 - 3**0.5 / 2]
    )
    assert problem.x0[:, 1].tolist() == [3] * 5
