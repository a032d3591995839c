"""`unroll`: so many steps, those of a search, with the gradients of what was computed."""

import pytest
import torch
from torch import nn

from dyn_numerics import (
    Anderson,
    Armijo,
    Broyden,
    Chord,
    FixedPointIteration,
    LearnedLineSearch,
    NeuralAnderson,
    Newton,
    Proposal,
    RootStatus,
    RootStepper,
    fixed_point,
    root_find,
    unroll,
)
from dyn_numerics.loop import is_supported

D = torch.float64
METHODS = [FixedPointIteration(0.8), Anderson(m=2), Broyden(jacobian=-1.0), Chord(), Newton()]


def test_steps_of_picard_in_closed_form():
    z0 = torch.tensor([[1.0], [3.0]], dtype=D)
    iterates = unroll(lambda z: z / 2 + 1, z0, solver="fixed_point", n_steps=4)
    expected = 2 + (z0 - 2) * 0.5 ** torch.arange(5, dtype=D).reshape(5, 1, 1)
    torch.testing.assert_close(iterates.z, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(iterates.value, 1 - expected / 2, rtol=0, atol=1e-15)
    torch.testing.assert_close(iterates.residual, (1 - expected / 2).abs().squeeze(-1), rtol=0, atol=1e-15)
    assert iterates.internals == ()


@pytest.mark.parametrize("stepper", METHODS, ids=lambda m: type(m).__name__)
def test_its_steps_are_those_of_a_search(stepper, equilibrium):
    x = equilibrium.draw(5, seed=1)
    options = {"solver": stepper, "args": (x,)}
    with torch.no_grad():
        iterates = unroll(equilibrium, equilibrium.start(5), n_steps=3, **options)
        found = fixed_point(
            equilibrium, equilibrium.start(5), max_steps=3, throw=False, rtol=1e-15, atol=0.0, **options
        )
    best = iterates.residual.argmin(dim=0)
    torch.testing.assert_close(found.z, iterates.z[best, torch.arange(5)], rtol=0, atol=1e-14)
    torch.testing.assert_close(found.residual, iterates.residual.amin(dim=0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("stepper", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("search", [None, Armijo(), LearnedLineSearch()], ids=["none", "armijo", "learned"])
def test_gradients_of_every_method(stepper, search, equilibrium, gradients, shaken):
    z0, x = equilibrium.start(4) + 0.1, equilibrium.draw(4, seed=1)
    tensors = [tensor.requires_grad_() for tensor in (z0, x, equilibrium.weight)]
    if isinstance(search, LearnedLineSearch):
        tensors += shaken(search).parameters()

    def loss():
        iterates = unroll(equilibrium, z0, solver=stepper, args=(x,), n_steps=3, line_search=search)
        return iterates.z.square().mean() + iterates.value.sin().mean() + iterates.residual.mean()

    gradients(loss, tensors)


def test_roots_and_their_own_names():
    a = torch.tensor([[2.0], [3.0]], dtype=D, requires_grad=True)
    iterates = unroll(lambda z, a: z**2 - a, torch.ones_like(a), kind="root", solver="newton", args=(a,), n_steps=7)
    torch.testing.assert_close(iterates.z[-1], a.sqrt(), rtol=1e-15, atol=0)
    (gradient,) = torch.autograd.grad(iterates.z[-1].sum(), a)
    torch.testing.assert_close(gradient, 0.5 / a.sqrt(), rtol=1e-14, atol=0)
    with torch.no_grad():  # "broyden" starts with another Jacobian for a root
        found = unroll(lambda z: 2 * z - 1, torch.zeros(1, 1, dtype=D), kind="root", solver="broyden", n_steps=1)
        expected = root_find(lambda z: 2 * z - 1, torch.zeros(1, 1, dtype=D), solver="broyden", max_steps=1)
    assert torch.equal(found.z[-1], expected.z)


def test_pytrees_and_shapes():
    z0 = {"a": torch.zeros(3, 2, 2, dtype=D), "b": (torch.ones(3, dtype=D),)}

    def h(z):
        return {"a": z["a"] / 2 + z["b"][0].reshape(-1, 1, 1), "b": (z["b"][0] / 4,)}

    iterates = unroll(h, z0, solver="fixed_point", n_steps=2)
    assert iterates.z["a"].shape == iterates.value["a"].shape == (3, 3, 2, 2)
    assert iterates.z["b"][0].shape == iterates.value["b"][0].shape == (3, 3)
    assert iterates.residual.shape == (3, 3)
    torch.testing.assert_close(iterates.z["a"][:, 0, 1, 0], torch.tensor([0, 1, 0.75], dtype=D), rtol=0, atol=0)
    torch.testing.assert_close(iterates.value["b"][0][:, 2], torch.tensor([-0.75, -0.1875, -0.046875], dtype=D))


def test_complex_states():
    z = unroll(lambda z: 0.5j * z + 1, torch.zeros(2, 1, dtype=torch.complex128), solver="fixed_point", n_steps=60).z
    torch.testing.assert_close(z[-1], torch.full((2, 1), 1 / (1 - 0.5j), dtype=z.dtype), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_precisions(dtype, equilibrium):
    x = equilibrium.draw(3, seed=2)
    exact = unroll(equilibrium, equilibrium.start(3), solver="anderson", args=(x,), n_steps=4)
    found = unroll(equilibrium, equilibrium.start(3).to(dtype), solver="anderson", args=(x.to(dtype),), n_steps=4)
    assert found.z.dtype == found.value.dtype == dtype
    assert found.residual.dtype == torch.float32
    torch.testing.assert_close(found.z.double(), exact.z, rtol=0, atol=50 * torch.finfo(dtype).eps)


def root_of(z, a):
    return torch.sqrt(a - z) - z  # not finite beyond a


@pytest.mark.parametrize("stepper", [FixedPointIteration(), NeuralAnderson(m=2).double()], ids=["picard", "neural"])
@pytest.mark.parametrize("search", [None, LearnedLineSearch().double()], ids=["none", "learned"])
def test_a_sample_that_leaves_the_domain_stays_and_disturbs_nobody(stepper, search):
    scale = torch.tensor(1.0, dtype=D, requires_grad=True)
    z0 = torch.tensor([[0.2], [0.0], [0.3]], dtype=D)
    a = torch.tensor([[2.0], [0.5], [1.5]], dtype=D)  # the second goes to 0.7 and beyond

    def steps(chosen):
        return unroll(
            lambda z, a: root_of(scale * z, a),
            z0[chosen],
            kind="root",
            solver=stepper,
            args=(a[chosen],),
            n_steps=3,
            line_search=search,
        )

    together, good = steps([0, 1, 2]), steps([0, 2])
    assert torch.isfinite(together.z).all()
    assert torch.isfinite(together.value).all()
    torch.testing.assert_close(together.z[:, [0, 2]], good.z, rtol=0, atol=1e-15)
    parameters = [scale, *stepper.parameters()]
    found, expected = (
        torch.autograd.grad(each.square().sum(), parameters, allow_unused=True)
        for each in (together.residual[:, [0, 2]], good.residual)
    )
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-13, atol=1e-15)
    if search is None:
        assert torch.equal(together.z[1:, 1], z0[1].detach().expand(3, 1))


def test_a_sample_without_a_step_stays():
    z0 = torch.tensor([[0.0], [1.0]], dtype=D, requires_grad=True)
    iterates = unroll(lambda z: z**2 - 2, z0, kind="root", solver="newton", n_steps=2)
    assert iterates.z[:, 0].tolist() == [[0.0]] * 3  # whose Jacobian is singular
    assert iterates.z[1:, 1, 0].tolist() == pytest.approx([1.5, 1.5 - 0.25 / 3])
    assert torch.autograd.grad(iterates.z[-1, 1].sum(), z0)[0][1].isfinite()


class Gives(RootStepper):
    """Goes nowhere sensible where it gives up, and says so."""

    def step(self, f, z, carry, context):
        status = torch.where(z[:, 0] > 0, RootStatus.SINGULAR.code, 0)
        return Proposal(torch.where(z > 0, 99.0, z + context.value), carry, status=status)


class Noted(Armijo):
    def __init__(self):
        super().__init__()
        self.steps = []

    def first_length(self, direction, context):
        self.steps.append(context.n_steps)
        return super().first_length(direction, context)


def test_a_method_that_gives_up_and_a_search_that_counts():
    z0, search = torch.tensor([[-1.0], [1.0]], dtype=D), Noted()
    iterates = unroll(lambda z: z / 2, z0, solver=Gives(), n_steps=3, line_search=search)
    expected = torch.tensor([[-1.0, 1], [-0.5, 1], [-0.25, 1], [-0.125, 1]], dtype=D)
    assert torch.equal(iterates.z.squeeze(-1), expected)
    assert search.steps == [0, 1, 2]


def test_samples_are_problems_of_their_own(equilibrium):
    x, order = equilibrium.draw(6, seed=3), torch.tensor([4, 2, 0, 5, 3, 1])
    h = lambda z, x: 0.5 * torch.cos(z + x[:, :1])  # noqa: E731
    solver, z0 = NeuralAnderson(m=3).double(), torch.zeros(6, 4, dtype=D)
    nn.init.normal_(solver.mixing.last.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    iterates = unroll(h, z0, solver="fixed_point", args=(x,), n_steps=4)
    moved = unroll(h, z0, solver="fixed_point", args=(x[order],), n_steps=4)
    assert torch.equal(iterates.z[:, order], moved.z)
    alone = unroll(h, z0[:1], solver=solver, args=(x[:1],), n_steps=4)
    torch.testing.assert_close(unroll(h, z0, solver=solver, args=(x,), n_steps=4).z[:, :1], alone.z, rtol=0, atol=1e-14)


def test_gradients_under_torch_func(equilibrium):
    x = equilibrium.draw(2, seed=4)

    def last(x):
        return unroll(equilibrium, equilibrium.start(2), solver="anderson", args=(x,), n_steps=3).z[-1]

    forward, backward = torch.func.jacfwd(last)(x), torch.func.jacrev(last)(x)
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-12)
    several = torch.stack([x, 2 * x])
    torch.testing.assert_close(torch.func.vmap(last)(several)[1], last(2 * x), rtol=0, atol=1e-13)


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("search", [None, LearnedLineSearch()], ids=["none", "learned"])
def test_compiled_gradients(search, equilibrium, shaken, guess):
    torch._dynamo.reset()
    solver, x = shaken(NeuralAnderson(initial=guess, m=2)), equilibrium.draw(4, seed=1).requires_grad_()
    tensors = [x, *solver.parameters()]
    if search is not None:
        tensors += shaken(search).parameters()

    def loss(x):
        iterates = unroll(equilibrium, equilibrium.start(4), solver=solver, args=(x,), n_steps=3, line_search=search)
        return iterates.residual.sum() + iterates.z.square().sum()

    expected = torch.autograd.grad(loss(x), tensors)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), tensors)
    for value, right in zip(found, expected, strict=True):
        assert right.any()
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-14)


class NoGradient(RootStepper):
    differentiable = False

    def step(self, f, z, carry, context):
        return Proposal(z + context.value, carry)


def test_bad_input(equilibrium):
    z0, x = equilibrium.start(2), equilibrium.draw(2, seed=0)
    options = {"solver": "anderson", "args": (x,), "n_steps": 2}
    with pytest.raises(ValueError, match="kind: got 'minimum', expected 'fixed_point' or 'root'"):
        unroll(equilibrium, z0, **{**options, "kind": "minimum"})
    for n_steps in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"n_steps: got .*, expected a positive integer"):
            unroll(equilibrium, z0, **{**options, "n_steps": n_steps})
    with pytest.raises(TypeError, match=r"f: got a function with the signature"):
        unroll(equilibrium, z0, **{**options, "args": ()})
    with pytest.raises(ValueError, match=r"solver: got 'andersen', .* did you mean 'anderson'"):
        unroll(equilibrium, z0, **{**options, "solver": "andersen"})
    with pytest.raises(ValueError, match=r"through whose steps no gradient flows"):
        unroll(equilibrium, z0, **{**options, "solver": NoGradient(), "args": (x.requires_grad_(),)})
    with torch.no_grad():
        assert unroll(equilibrium, z0, **{**options, "solver": NoGradient()}).z.shape == (3, 2, 8)
