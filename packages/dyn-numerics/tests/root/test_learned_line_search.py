"""`LearnedLineSearch`: what it sees, that it never goes uphill, and that it learns."""

import pytest
import torch
from torch import nn

from dyn_numerics import FixedPointIteration, LearnedLineSearch, Newton, root_find, unroll
from dyn_numerics.loop import is_supported

D = torch.float64


def test_before_training_the_first_length_is_one():
    z0 = torch.tensor([[1.0], [1.2]], dtype=D)
    with torch.no_grad():
        iterates = unroll(
            torch.atan, z0, kind="root", solver="newton", n_steps=3, line_search=LearnedLineSearch().double()
        )
        plain = unroll(torch.atan, z0, kind="root", solver="newton", n_steps=3)
    assert torch.equal(iterates.z, plain.z)


def test_what_it_sees():
    seen = []

    def net(features):
        seen.append(features)
        return torch.full((len(features), 1), 0.5, dtype=D).log()

    z0 = torch.tensor([[3.0, 4.0], [0.6, 0.8]], dtype=D)
    matrix = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=D)
    jac = lambda z: matrix.expand(2, 2, 2)  # noqa: E731
    iterates = unroll(
        lambda z: z @ matrix.T, z0, kind="root", solver=Newton(jac), n_steps=1, line_search=LearnedLineSearch(net)
    )
    torch.testing.assert_close(iterates.z[1], z0 / 2)  # the step of Newton's method goes to zero
    size = z0.square().mean(-1).sqrt()
    expected = torch.stack([(2 * size).log(), size.log(), torch.zeros(2, dtype=D)], -1)  # at right angles
    torch.testing.assert_close(seen[0], expected)
    unroll(
        lambda z: 2 * z, z0, kind="root", solver=FixedPointIteration(), n_steps=1, line_search=LearnedLineSearch(net)
    )
    torch.testing.assert_close(seen[-1][:, 2], torch.ones(2, dtype=D))


@pytest.mark.parametrize("first", [-3.0, 0.0, 2.0, 9.0, float("inf"), float("nan")])
def test_it_never_goes_uphill(first):
    search = LearnedLineSearch(lambda seen: torch.full((len(seen), 1), first, dtype=D))
    z0 = torch.linspace(-6, 6, 8, dtype=D).reshape(-1, 1)
    with torch.no_grad():
        iterates = unroll(torch.atan, z0, kind="root", solver="newton", n_steps=12, line_search=search)
    fell = iterates.residual[1:] < iterates.residual[:-1]
    assert (fell | (iterates.z[1:] == iterates.z[:-1]).squeeze(-1)).all()
    assert torch.isfinite(iterates.z).all()
    assert bool(fell[0].all()) == (first < 10)


class Reciprocal(FixedPointIteration):
    """Divides by zero from 5 on."""

    def step(self, f, z, carry, context):
        ahead = super().step(f, z, carry, context)
        return ahead._replace(z=torch.where(z < 5, ahead.z, 1 / (z.detach() - z.detach())))


@pytest.mark.parametrize("start", [6.0, 1e200])
def test_its_gradients_beside_steps_that_are_not_finite(start):
    """Or whose squares are not."""
    search = LearnedLineSearch().double()
    z0 = torch.tensor([[1.0], [start]], dtype=D)

    def gradients(z0):
        sol = root_find(lambda z: 1 - 0.5 * z, z0, solver=Reciprocal(), line_search=search, max_steps=2, throw=False)
        return torch.autograd.grad(sol.z[0].sum(), list(search.parameters()))

    for found, expected in zip(gradients(z0), gradients(z0[:1]), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_through_halved_lengths(gradients, shaken):
    search = shaken(LearnedLineSearch())
    with torch.no_grad():
        search.net[-1].bias += 2.0  # far too long
    z0 = torch.tensor([[2.0], [-1.5], [0.4]], dtype=D, requires_grad=True)

    def steps():
        options = {"kind": "root", "solver": "fixed_point", "n_steps": 2, "line_search": search}
        return unroll(lambda z: -torch.atan(z), z0, **options)

    first = []
    search.net.register_forward_hook(lambda net, seen, said: first.append(said.exp()))
    taken = (z0 - steps().z[1]) / torch.atan(z0)
    halvings = (first[0] / taken).log2()
    torch.testing.assert_close(halvings, halvings.round(), rtol=0, atol=1e-12)
    assert (halvings > 0.5).all()
    gradients(lambda: steps().z.square().sum() + steps().residual.sum(), [z0, *search.parameters()])


def stiff(z, a):
    return -a * torch.sinh(z)


def test_it_learns_lengths_for_problems_it_has_not_seen():
    """Along the residual, a length of about 1 / a is best."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)

    def draw(count, smallest=0.0):
        a = 0.2 + 0.15 * torch.rand(count, 1, dtype=D, generator=generator)
        size = 10 ** (smallest * torch.rand(count, 1, dtype=D, generator=generator))
        return size * (2 * torch.rand(count, 3, dtype=D, generator=generator) - 1), a

    def steps(search):
        z0, a = held_out
        with torch.no_grad():
            options = {"solver": "fixed_point", "args": (a,), "rtol": 1e-4, "atol": 0.0}
            return root_find(stiff, z0, line_search=search, **options).stats.n_steps.double().mean().item()

    held_out, search = draw(64), LearnedLineSearch().double()
    before = steps(search)
    assert before == steps(None)
    optimizer = torch.optim.Adam(search.parameters(), lr=3e-3)
    for _ in range(400):
        z0, a = draw(32, smallest=-4.0)  # as near to the root as it will come
        iterates = unroll(stiff, z0, kind="root", solver="fixed_point", args=(a,), n_steps=2, line_search=search)
        loss = (iterates.residual[1:] / iterates.residual[:-1]).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert steps(search) < 0.5 * before


def nearly_whole():
    """A network that says lengths near 1."""
    net = nn.Linear(3, 1, dtype=D)
    nn.init.normal_(net.weight, std=0.05)
    nn.init.zeros_(net.bias)
    return net


def test_it_is_used_by_searches():
    search = LearnedLineSearch(nearly_whole())
    with torch.no_grad():
        found = root_find(torch.atan, torch.full((2, 1), 5.0, dtype=D), solver="newton", line_search=search)
        alone = root_find(torch.atan, torch.full((1, 1), 5.0, dtype=D), solver="newton", line_search=search)
    assert torch.equal(found.z[:1], alone.z)
    assert (found.z.abs() < 1e-7).all()
    through = root_find(torch.atan, torch.full((2, 1), 1.0, dtype=D), solver="newton", line_search=search)
    assert torch.isfinite(torch.autograd.grad(through.z.sum(), search.net.weight)[0]).all()


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.timeout(300)
def test_eager_equals_compiled():
    torch._dynamo.reset()
    search = LearnedLineSearch(nearly_whole())

    def found(z0):
        return root_find(torch.atan, z0, solver="newton", line_search=search)

    with torch.no_grad():
        z0 = torch.tensor([[5.0], [0.3]], dtype=D)
        eager, compiled = found(z0), torch.compile(found, fullgraph=True, backend="eager")(z0)
    assert torch.equal(eager.stats.n_steps, compiled.stats.n_steps)
    assert torch.equal(eager.stats.n_evals, compiled.stats.n_evals)
    torch.testing.assert_close(compiled.z, eager.z, rtol=0, atol=1e-12)


def test_complex_steps():
    search = LearnedLineSearch().double()
    z0 = torch.tensor([[1.0 + 1j]], dtype=torch.complex128)
    with torch.no_grad():
        z = root_find(lambda z: z**2 + 1, z0, solver="newton", line_search=search, rtol=1e-12, atol=1e-12).z
    torch.testing.assert_close(z, torch.full_like(z, 1j), rtol=0, atol=1e-10)


def test_bad_input():
    with pytest.raises(TypeError, match="net: got the class Linear, expected a module, a function or None"):
        LearnedLineSearch(nn.Linear)
    with pytest.raises(TypeError, match="net: got a int, expected a module, a function or None"):
        LearnedLineSearch(3)
    with pytest.raises(ValueError, match="max_trials: got 0, expected a positive integer"):
        LearnedLineSearch(max_trials=0)
    search = LearnedLineSearch(lambda seen: seen[:, 0])
    with pytest.raises(ValueError, match=r"net: returned shape \[2\], expected a tensor of shape \[2, 1\]"):
        unroll(torch.atan, torch.ones(2, 1), kind="root", solver="newton", n_steps=1, line_search=search)
    sizes = sum(parameter.numel() for parameter in LearnedLineSearch().parameters())
    assert sizes == 81
