"""Problems against closed forms and what they conserve."""

import torch

from dyn_bench.problems.lotka_volterra import LotkaVolterra
from dyn_bench.problems.perceptron import Perceptron
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
