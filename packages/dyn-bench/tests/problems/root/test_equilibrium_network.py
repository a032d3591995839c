"""The equilibrium network: its formula, and how fast it contracts for which inputs."""

import pytest
import torch

from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork


def rates(network, x, gain):
    """Spectral radii of the Jacobians at the fixed points, `[batch]`."""
    z = torch.zeros(len(x), len(network.weight), dtype=x.dtype)
    for _ in range(8000):
        z = network(z, x, gain)
    assert (network(z, x, gain) - z).abs().max() < 1e-13
    jacobian = torch.func.vmap(torch.func.jacrev(network))(z, x, gain)
    return torch.linalg.eigvals(jacobian).abs().amax(-1)


def test_it_is_its_formula():
    network = EquilibriumNetwork(width=5, input_width=3, seed=2).double()
    z, x = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    gain = torch.tensor([[1.0], [0.5], [1.1], [0.0]], dtype=torch.float64)
    expected = [
        [torch.tanh(gain[b, 0] * network.weight[i] @ z[b] + network.input_weight[i] @ x[b]).item() for i in range(5)]
        for b in range(4)
    ]
    torch.testing.assert_close(network(z, x, gain), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("contraction", [0.5, 0.9])
def test_the_weights_have_the_chosen_norm(contraction):
    network = EquilibriumNetwork(width=64, input_width=16, contraction=contraction)
    eigenvalues = torch.linalg.eigvals(network.weight.double()).abs()
    assert torch.linalg.matrix_norm(network.weight.double(), 2).item() == pytest.approx(contraction, rel=1e-6)
    assert eigenvalues.max().item() == pytest.approx(contraction, rel=1e-6)
    assert network.input_weight.square().sum(1).mean().item() == pytest.approx(1, abs=0.2)


def test_hard_samples_are_nearly_as_slow_as_said_and_others_much_faster():
    with torch.no_grad():
        network = EquilibriumNetwork(width=64, input_width=16).double()
        x, gain = network.inputs(count=40, hard=0.05, seed=3)
        hard = (gain > 1).squeeze(-1)
        rate = rates(network, x, gain)
    assert int(hard.sum()) == 2
    assert gain[hard].unique().item() == pytest.approx(0.995 / 0.9)
    assert gain[~hard].unique().item() == 1
    assert 0.98 < rate[hard].min() < rate[hard].max() < 0.995
    assert 0.4 < rate[~hard].min() < rate[~hard].max() < 0.85


def test_inputs_are_of_the_weights_kind_and_their_seed_decides():
    network = EquilibriumNetwork(width=6, input_width=4)
    x, gain = network.inputs(count=100, hard=0.2, hard_contraction=0.99)
    assert x.dtype == gain.dtype == torch.float32
    assert x.shape == (100, 4)
    assert gain.shape == (100, 1)
    hard = (gain > 1).squeeze(-1)
    assert int(hard.sum()) == 20
    assert not hard[:20].all()
    assert x[hard].std().item() == pytest.approx(0.01, rel=0.3)
    assert x[~hard].std().item() == pytest.approx(1, rel=0.3)
    assert torch.equal(x, network.inputs(count=100, hard=0.2)[0])
    assert not torch.equal(x, network.inputs(count=100, hard=0.2, seed=1)[0])
    assert bool((network.inputs(count=10)[1] == 1).all())


def test_the_seed_decides_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (EquilibriumNetwork(width=6, input_width=4, seed=seed).weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_its_weights_are_trained():
    network = EquilibriumNetwork(width=6, input_width=4)
    x, gain = network.inputs(count=3)
    network(torch.ones(3, 6), x, gain).sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in network.parameters())
