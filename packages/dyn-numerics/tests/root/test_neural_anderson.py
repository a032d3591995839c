"""`NeuralAnderson` and its losses: gradients, what it is before training, and what training brings."""

import pytest
import torch
from torch import nn

from dyn_numerics import (
    FixedPointIteration,
    MixingNetwork,
    NeuralAnderson,
    PerSample,
    convergence_loss,
    fixed_point,
    initial_loss,
    mixing_loss,
    root_find,
    unroll,
)
from dyn_numerics.loop import is_supported

D = torch.float64


def exact(h, z0, x):
    with torch.no_grad():
        return fixed_point(h, z0, args=(x,), rtol=1e-13, atol=1e-14, max_steps=2000, solver="fixed_point").z


@pytest.mark.parametrize("damping", [1.0, 0.7])
def test_before_training_it_is_the_fixed_point_iteration(damping, equilibrium, guess):
    x, z0 = equilibrium.draw(5, seed=1), equilibrium.start(5) + 0.2
    solver = NeuralAnderson(initial=guess, damping=damping).double()
    with torch.no_grad():
        found, expected = (
            unroll(equilibrium, z0, solver=method, args=(x,), n_steps=8)
            for method in (solver, FixedPointIteration(damping))
        )
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-14)
    weights = torch.zeros(8, 5, 5, dtype=D)
    weights[..., 0] = 1
    assert torch.equal(found.internals.weights, weights)
    torch.testing.assert_close(found.internals.residual, expected.residual[:-1], rtol=0, atol=1e-15)


def test_the_update_in_closed_form():
    said = torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=D)  # of weights, and the logarithm of the damping
    seen = []

    def mixing(residuals, n):
        seen.append((residuals, n))
        return said.expand(len(residuals), 4)

    solver = NeuralAnderson(mixing=mixing, m=3)
    z0 = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=D)
    iterates = unroll(lambda z: torch.cos(2 * z), z0, solver=solver, n_steps=4)
    z, f = iterates.z, iterates.value
    for k in range(4):
        n = min(k + 1, 3)
        alpha = said[:n] + (1 - said[:n].sum()) / n  # the newest first, as if 0 had been added to 1 before
        alpha = torch.tensor([1.0, 0, 0], dtype=D)[:n] + said[:n] - said[:n].mean()
        past = range(k, k - n, -1)
        mixed = sum(a * f[i] for a, i in zip(alpha, past, strict=True))
        expected = sum(a * z[i] for a, i in zip(alpha, past, strict=True)) + said[3].exp() * mixed
        torch.testing.assert_close(z[k + 1], expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(iterates.internals.weights[k].sum(-1), torch.ones(2, dtype=D), rtol=0, atol=1e-15)
        torch.testing.assert_close(iterates.internals.residual[k], mixed.square().mean(-1).sqrt(), rtol=0, atol=1e-14)
        assert torch.equal(iterates.internals.weights[k, :, n:], torch.zeros(2, 3 - n, dtype=D))
        residuals, count = seen[k]
        assert count == n
        for place, i in enumerate(past):
            assert torch.equal(residuals[:, place], f[i])


def test_gradients_of_every_parameter(equilibrium, guess, gradients, shaken):
    x, z0 = equilibrium.draw(4, seed=2), equilibrium.start(4)
    solver = shaken(NeuralAnderson(initial=guess, m=3))
    right = exact(equilibrium, z0, x)
    network = solver.mixing
    groups = {
        "initial": list(guess.parameters()),
        "mixing": [network.hidden.weight, network.hidden.bias, network.last.weight, network.last.bias],
        "problem": [x.requires_grad_(), z0.requires_grad_(), equilibrium.weight.requires_grad_()],
    }

    def steps():
        return unroll(equilibrium, z0, solver=solver, args=(x,), n_steps=5)

    everything = [tensor for group in groups.values() for tensor in group]
    gradients(lambda: convergence_loss(steps(), right).mean(), everything)
    gradients(lambda: mixing_loss(steps()).mean(), everything)
    gradients(lambda: initial_loss(steps(), right).mean(), [*groups["initial"], x, z0])
    gradients(lambda: steps().residual.log().mean(), everything)
    # Weights and damping have rows of their own in the last layer.
    rows = torch.autograd.grad(convergence_loss(steps(), right).mean(), network.last.weight)[0].abs().sum(dim=1)
    assert (rows > 0).all()
    gradients(lambda: steps().internals.damping.sum(), [network.last.bias])
    gradients(lambda: steps().internals.weights[..., 0].sum(), [network.last.bias])


def trained(equilibrium, solver, iterations=300):
    x = equilibrium.draw(512, seed=1)
    right = exact(equilibrium, equilibrium.start(512), x)
    optimizer = torch.optim.Adam(solver.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    generator = torch.Generator().manual_seed(5)
    weights = 2.0 ** torch.arange(8)
    for iteration in range(iterations):
        chosen = torch.randint(512, (32,), generator=generator)
        iterates = unroll(equilibrium, equilibrium.start(32), solver=solver, args=(x[chosen],), n_steps=8)
        loss = convergence_loss(iterates, right[chosen], weights).log().mean()
        loss = loss + 0.5 * initial_loss(iterates, right[chosen]).mean()
        loss = loss + max(0.0, 0.1 * (1 - 3 * iteration / iterations)) * mixing_loss(iterates).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return solver


@torch.no_grad()
def steps_of(equilibrium, solver, rtol, **options):
    x = equilibrium.draw(64, seed=2026)
    found = fixed_point(equilibrium, equilibrium.start(64), solver=solver, args=(x,), rtol=rtol, atol=0.0, **options)
    torch.testing.assert_close(found.z, exact(equilibrium, equilibrium.start(64), x), rtol=0, atol=100 * rtol)
    return found.stats.n_steps.double().mean().item()


def test_training_saves_steps_on_problems_it_has_not_seen(equilibrium, guess):
    before = {rtol: steps_of(equilibrium, "fixed_point", rtol) for rtol in (1e-2, 1e-4)}
    torch.manual_seed(0)
    solver = NeuralAnderson(initial=guess, m=4).double()
    for rtol, steps in before.items():
        assert steps_of(equilibrium, solver, rtol) == steps
    trained(equilibrium, solver)
    assert steps_of(equilibrium, solver, 1e-2) < 0.5 * before[1e-2]
    assert steps_of(equilibrium, solver, 1e-4) < 0.6 * before[1e-4]
    mixed = NeuralAnderson(m=4).double()  # without its start it still gains
    mixed.mixing = solver.mixing
    assert steps_of(equilibrium, mixed, 1e-4) < 0.8 * before[1e-4]


def test_searches_alone_compact_and_for_roots_agree(equilibrium, guess):
    x, z0 = equilibrium.draw(9, seed=6), equilibrium.start(9)
    torch.manual_seed(0)
    solver = NeuralAnderson(initial=guess, m=3).double()
    with torch.no_grad():
        for parameter in solver.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, dtype=D))
        options = {"solver": solver, "args": (x,), "rtol": 1e-9, "atol": 0.0}
        found = fixed_point(equilibrium, z0, **options)
        for n, row in enumerate(found.stats.n_steps):
            alone = fixed_point(equilibrium, z0[n : n + 1], **{**options, "args": (x[n : n + 1],)})
            assert alone.stats.n_steps == row
            torch.testing.assert_close(alone.z, found.z[n : n + 1], rtol=0, atol=1e-12)
        small = fixed_point(equilibrium, z0, compact=True, **{**options, "args": (PerSample(x),)})
        assert torch.equal(small.stats.n_steps, found.stats.n_steps)
        torch.testing.assert_close(small.z, found.z, rtol=0, atol=1e-12)
        root = root_find(
            lambda z, x: equilibrium(z, x) - z, z0, solver=solver, args=(x,), rtol=1e-9, atol=1e-9, max_steps=400
        )
        torch.testing.assert_close(root.z, found.z, rtol=0, atol=1e-7)


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.timeout(300)
def test_eager_equals_compiled(equilibrium, guess):
    torch._dynamo.reset()
    x, z0 = equilibrium.draw(5, seed=6), equilibrium.start(5)
    solver = NeuralAnderson(initial=guess, m=3).double()
    with torch.no_grad():
        for parameter in solver.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, dtype=D, generator=torch.Generator().manual_seed(2)))

        def found(x):
            return fixed_point(equilibrium, z0, solver=solver, args=(x,), rtol=1e-6, atol=0.0)

        eager, compiled = found(x), torch.compile(found, fullgraph=True, backend="eager")(x)
    assert torch.equal(eager.stats.n_steps, compiled.stats.n_steps)
    assert torch.equal(eager.stats.n_evals, compiled.stats.n_evals)
    torch.testing.assert_close(compiled.z, eager.z, rtol=0, atol=1e-12)


def test_pytrees_and_networks_of_the_users():
    torch.manual_seed(0)

    class Pooled(nn.Module):
        """Sees means over space, as for images."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2 * 3, 3, dtype=D)

        def forward(self, residuals, n):
            assert residuals["a"].shape[1:] == (2, 3, 4, 4)
            assert residuals["b"].shape[1:] == (2,)
            return 0.1 * self.linear(residuals["a"].mean(dim=(-1, -2)).flatten(1))

    def initial(x, bias):
        return {"a": x, "b": bias.expand(len(x))}

    def h(z, x, bias):
        return {"a": torch.tanh(0.5 * z["a"] + x), "b": 0.3 * z["b"] + bias}

    x, bias = torch.randn(2, 3, 4, 4, dtype=D), torch.tensor(1.0, dtype=D)
    z0 = {"a": torch.zeros(2, 3, 4, 4, dtype=D), "b": torch.ones(2, dtype=D)}
    solver = NeuralAnderson(initial=initial, mixing=Pooled(), m=2)
    iterates = unroll(h, z0, solver=solver, args=(x, bias), n_steps=3)
    assert torch.equal(iterates.z["a"][0], x)
    assert torch.equal(iterates.z["b"][0], torch.full((2,), 2.0, dtype=D))
    iterates.residual.sum().backward()
    assert all(p.grad.any() for p in solver.parameters())
    default = NeuralAnderson(m=2).double()
    with torch.no_grad():
        for method in (solver, default):
            found = fixed_point(h, z0, solver=method, args=(x, bias), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(found.z["b"], torch.full((2,), 1 / 0.7, dtype=D), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_network_computes_in_its_own_precision(dtype, equilibrium):
    solver = NeuralAnderson(m=3)  # in float32
    nn.init.normal_(solver.mixing.last.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    x, z0 = equilibrium.draw(3, seed=2), equilibrium.start(3)
    with torch.no_grad():
        found = unroll(equilibrium, z0.to(dtype), solver=solver, args=(x.to(dtype),), n_steps=4)
        double = unroll(equilibrium, z0, solver=solver, args=(x,), n_steps=4)
    assert found.z.dtype == dtype
    assert double.z.dtype == D
    torch.testing.assert_close(found.z.double(), double.z, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_a_neighbour_that_fails():
    def h(z, x):
        return torch.where(x > 0, torch.cos(z), torch.log(-1 - z.abs()))

    x = torch.tensor([[1.0], [-1.0], [2.0]], dtype=D)
    solver, z0 = NeuralAnderson(m=3).double(), torch.ones(3, 1, dtype=D)
    nn.init.normal_(solver.mixing.last.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = fixed_point(h, z0, solver=solver, args=(x,), throw=False, max_steps=400)
    assert [status.name for status in found.status] == ["CONVERGED", "NON_FINITE", "CONVERGED"]
    torch.testing.assert_close(found.z[[0, 2], 0], torch.full((2,), 0.7390851332, dtype=D), rtol=0, atol=1e-7)


def test_losses_in_closed_form():
    iterates = unroll(
        lambda z: z / 2, torch.tensor([[4.0, 0.0], [8.0, 8.0]], dtype=D), solver=NeuralAnderson(), n_steps=3
    )
    right = torch.zeros(2, 2, dtype=D)
    start = torch.tensor([8.0**0.5, 8.0], dtype=D)
    torch.testing.assert_close(initial_loss(iterates, right), start)
    torch.testing.assert_close(convergence_loss(iterates, right), start * (0.5 * 1 + 0.25 * 2 + 0.125 * 3) / 6)
    weights = torch.tensor([0.0, 0.0, 5.0])
    torch.testing.assert_close(convergence_loss(iterates, right, weights), start / 8)
    torch.testing.assert_close(mixing_loss(iterates), start * (0.5 + 0.25 + 0.125))


def test_the_mixing_loss_is_least_for_the_weights_of_anderson():
    """With weights from least squares, it is no larger than with any other."""
    best = {}

    def mixing(residuals, n):
        said = torch.zeros(len(residuals), 4, dtype=D)
        if n > 1:
            change = (residuals[:, 1:n] - residuals[:, :1]).mT
            gamma = torch.linalg.lstsq(change, -residuals[:, 0].unsqueeze(-1)).solution.squeeze(-1)
            said[:, 0], said[:, 1:n] = -gamma.sum(-1), gamma
        best["said"] = said
        return said + best.get("noise", 0)

    def h(z):
        return torch.sin(z @ torch.tensor([[0.5, 0.3, 0], [0.1, 0.4, -0.2], [0, 0.2, 0.6]], dtype=D)) + 0.3

    z0 = torch.randn(4, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    solver = NeuralAnderson(mixing=mixing, m=3)
    least = unroll(h, z0, solver=solver, n_steps=2)
    for seed in range(5):
        noise = 0.1 * torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(seed))
        best["noise"] = torch.cat([noise[:, :3], torch.zeros(4, 1, dtype=D)], dim=-1)
        assert (mixing_loss(unroll(h, z0, solver=solver, n_steps=2)) > mixing_loss(least)).all()
        best.pop("noise")


def test_the_network_knows_no_units_and_no_order_of_elements():
    torch.manual_seed(0)
    net = MixingNetwork(m=3).double()
    nn.init.normal_(net.last.weight)
    residuals = torch.randn(4, 3, 7, dtype=D)
    said = net(residuals, 3)
    torch.testing.assert_close(net(1e-7 * residuals[..., torch.randperm(7)], 3), said, rtol=0, atol=1e-12)
    split = {"a": residuals[..., :4].reshape(4, 3, 2, 2), "b": residuals[..., 4:]}
    torch.testing.assert_close(net(split, 3), said, rtol=0, atol=1e-12)
    two = residuals.clone()
    two[:, 2] = 0
    assert not torch.allclose(net(two, 2), said)
    assert torch.isfinite(net(torch.zeros(4, 3, 7, dtype=D), 3)).all()


def test_a_solved_start_costs_one_evaluation():
    z0 = torch.full((2, 1), 0.5, dtype=D)
    solver = NeuralAnderson(initial=lambda: torch.full((2, 1), 0.5, dtype=D))
    with torch.no_grad():
        found = fixed_point(lambda z: z / 2 + 0.5, z0, solver=solver)
    assert found.stats.n_evals == 1
    assert torch.equal(found.z, torch.ones(2, 1, dtype=D))


def test_bad_input():
    z0 = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="mixing: got a int, expected a module, a function or None"):
        NeuralAnderson(mixing=3)
    with pytest.raises(TypeError, match="initial: got the class Linear, expected a module, a function or None"):
        NeuralAnderson(initial=nn.Linear)
    for options in ({"m": 0}, {"damping": 0.0}):
        with pytest.raises(ValueError, match="expected a positive"):
            NeuralAnderson(**options)
    with pytest.raises(ValueError, match=r"width: got 0, expected a positive integer"):
        MixingNetwork(3, width=0)
    with pytest.raises(ValueError, match=r"initial: returned shape \[2, 1\], expected \[2, 3\] as z0"):
        unroll(torch.cos, z0, solver=NeuralAnderson(initial=lambda: torch.zeros(2, 1)), n_steps=1)
    with pytest.raises(ValueError, match=r"mixing: returned shape \[2, 5\], expected a tensor of shape \[2, 6\]"):
        unroll(torch.cos, z0, solver=NeuralAnderson(mixing=lambda residuals, n: torch.zeros(2, 5)), n_steps=1)
    with pytest.raises(TypeError, match="which is for real ones"):
        unroll(torch.cos, z0 + 0j, solver=NeuralAnderson(), n_steps=1)
    iterates = unroll(torch.cos, z0, solver="anderson", n_steps=2)
    with pytest.raises(TypeError, match=r"iterates: got internals \(\), expected those of a NeuralAnderson"):
        mixing_loss(iterates)
    for wrong in (torch.zeros(2, 1), torch.zeros(3), {"a": torch.zeros(2, 3)}):
        with pytest.raises(
            ValueError, match=r"exact: got shapes .*, expected the structure of z0 and shapes \[\[2, 3\]\]"
        ):
            initial_loss(iterates, wrong)
    with pytest.raises(ValueError, match=r"weights: got shape \[3\], expected \[2\], one for every step"):
        convergence_loss(iterates, z0, torch.ones(3))
