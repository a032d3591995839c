"""Problems against closed forms and what they conserve."""

import pytest
import torch

from dyn_bench.problems.arenstorf import ARENSTORF_ORBIT, RestrictedThreeBody
from dyn_bench.problems.lotka_volterra import LOTKA_VOLTERRA_TO_10, LotkaVolterra
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.problems.reference_problem import ReferenceProblem
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_numerics import odeint


def solution(field, x0, end):
    t = torch.linspace(0, end, 20, dtype=torch.float64)
    return t, odeint(field, x0, t, solver="dopri5", rtol=1e-11, atol=1e-11).x


def test_van_der_pol_without_damping_is_an_oscillator():
    t, x = solution(VanDerPol(mu=0.0), torch.tensor([[2.0, 0.0]], dtype=torch.float64), 5.0)
    torch.testing.assert_close(x[:, 0], 2 * torch.stack([t.cos(), -t.sin()], -1), atol=1e-8, rtol=0)


def test_van_der_pol_s_energy_changes_by_the_damping():
    x = torch.randn(7, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = VanDerPol(mu=1.7)(torch.tensor(0.0), x)
    position, velocity = x.unbind(-1)
    torch.testing.assert_close((x * slope).sum(-1), 1.7 * (1 - position**2) * velocity**2)
    torch.testing.assert_close(slope[..., 0], velocity)


def test_lotka_volterra_conserves_its_invariant_and_rests_where_it_should():
    field = LotkaVolterra(growth=1.1, predation=0.4, gain=0.1, death=0.4)
    x0 = torch.tensor([[10.0, 10.0], [3.0, 1.0], [4.0, 2.75]], dtype=torch.float64)
    _, x = solution(field, x0, 10.0)
    invariant = field.invariant(x)
    torch.testing.assert_close(invariant, invariant[:1].expand_as(invariant), atol=1e-8, rtol=0)
    torch.testing.assert_close(x[:, 2], x0[2].expand(20, 2))  # death / gain, growth / predation
    assert (x[-1, 0] - x0[0]).abs().max() > 1


def test_the_perceptron_is_its_formula():
    field = Perceptron(width=8, seed=3).double()
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (a, b), (c, d), (e, f) = ((layer.weight, layer.bias) for layer in field.net if hasattr(layer, "weight"))
    expected = torch.tanh(torch.tanh(x @ a.T + b) @ c.T + d) @ e.T + f
    torch.testing.assert_close(field(torch.tensor(0.0), x), expected)


def test_the_perceptron_s_seed_decides_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (Perceptron(seed=seed).net[0].weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_restricted_three_body_problem_conserves_jacobi_s_constant():
    field = RestrictedThreeBody(mu=0.3)
    x0 = torch.tensor([[0.1, 0.9, -0.2, 0.4], [1.5, 0.0, 0.1, -1.3]], dtype=torch.float64)
    _, x = solution(field, x0, 3.0)
    energy = field.energy(x)
    torch.testing.assert_close(energy, energy[:1].expand_as(energy), atol=1e-8, rtol=0)
    assert (x[-1] - x0).abs().max() > 0.5


def test_the_slopes_of_the_restricted_three_body_problem_by_hand():
    # At (1, 1) with masses 0.8 at (-0.2, 0) and 0.2 at (0.8, 0), and a velocity of (3, 5).
    x = torch.tensor([1.0, 1.0, 3.0, 5.0], dtype=torch.float64)
    earth, moon = 0.8 / (1.2**2 + 1) ** 1.5, 0.2 / (0.2**2 + 1) ** 1.5
    expected = [3, 5, 1 + 10 - 1.2 * earth - 0.2 * moon, 1 - 6 - earth - moon]
    found = RestrictedThreeBody(mu=0.2)(torch.tensor(0.0), x)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("problem", "distance"), [(LOTKA_VOLTERRA_TO_10, 1e-12), (ARENSTORF_ORBIT, 1e-8)], ids=lambda p: str(p)[:30]
)
def test_reference_solutions_are_reached(problem, distance):
    """By a solve that is far more precise than what they are used for."""
    x = odeint(problem.field, problem.x0, problem.times(), solver="dopri8", rtol=1e-13, atol=1e-13).x
    assert problem.error(x[-1]) < distance


def test_the_error_of_a_reference_problem_is_scaled_as_tolerances_are():
    problem = ReferenceProblem("two", lambda t, x: x, (1.0, 2.0), 3.0, (0.0, -9.0), "by hand")
    assert problem.x0.tolist() == [1, 2]
    assert problem.times().tolist() == [0, 3]
    assert problem.times(3).tolist() == [0, 1, 2, 3]
    x = torch.tensor([0.5, -9.0], dtype=torch.float64)
    assert problem.error(x) == 0.5
    assert problem.error(x - torch.tensor([0.4, 2.0], dtype=torch.float64)) == pytest.approx(0.2)
