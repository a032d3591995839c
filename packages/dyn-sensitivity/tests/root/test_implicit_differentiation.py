"""Implicit differentiation in eager mode: against closed forms, finite differences and the unrolled search."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from dyn_numerics import Armijo, Bisection, NeuralAnderson, PerSample
from dyn_sensitivity import FixedPointLinearSolver, ImplicitDifferentiation, fixed_point, root_find

TIGHT = {"rtol": 1e-13, "atol": 1e-13}
LINEAR_SOLVERS = ["dense", "gmres", "bicgstab", "anderson", "fixed_point"]


class Layer(nn.Module):
    """A contraction with a parameter that nobody uses, one that is frozen, and dropout that is idle."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.frozen = nn.Parameter(torch.randn(size), requires_grad=False)
        self.unused = nn.Parameter(torch.randn(size))
        self.dropout = nn.Dropout(0.0)
        with torch.no_grad():
            self.linear.weight.mul_(0.5)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dropout(self.linear(z)) + x + 0.1 * self.frozen)


def contraction(z, w, x):
    return torch.tanh(z @ w + x)


def inputs(batch=2, size=3):
    return (0.3 * torch.randn(size, size)).requires_grad_(), torch.randn(batch, size, requires_grad=True)


@pytest.mark.parametrize(
    ("linear_solver", "is_root"),
    [*((name, False) for name in LINEAR_SOLVERS), ("dense", True), ("gmres", True), (None, True)],
)
def test_first_and_second_derivatives_agree_with_differences(linear_solver, is_root):
    sensitivity = ImplicitDifferentiation(linear_solver, rtol=1e-13)

    def solved(w, x):
        if is_root:
            g, solver = lambda z, w, x: contraction(z, w, x) - z, "newton"
            return root_find(g, torch.zeros(2, 2), args=(w, x), solver=solver, sensitivity=sensitivity, **TIGHT).z
        return fixed_point(contraction, torch.zeros(2, 2), args=(w, x), sensitivity=sensitivity, **TIGHT).z

    given = inputs(size=2)
    assert gradcheck(solved, given)
    assert gradgradcheck(solved, given)


@pytest.mark.parametrize("linear_solver", ["dense", "gmres"])
def test_five_derivatives_of_the_square_root(linear_solver):
    a = torch.tensor(2.0, requires_grad=True)
    sensitivity = ImplicitDifferentiation(linear_solver, rtol=1e-14)
    z, _ = root_find(
        lambda z, a: z**2 - a, torch.ones(1, 1), args=(a,), solver="newton", sensitivity=sensitivity, **TIGHT
    )
    derivative, exact, power = z.sum(), 1.0, 0.5
    for _ in range(5):
        (derivative,) = torch.autograd.grad(derivative, a, create_graph=True)
        exact, power = exact * power, power - 1
        assert derivative.item() == pytest.approx(exact * 2.0**power, rel=1e-11)


@pytest.mark.parametrize("training", [True, False])
def test_parameters_of_modules_in_closures_get_both_derivatives(training):
    """And of a layer that makes an argument from outside, while the function holds it too: neither counts twice."""
    layer, x = Layer().train(training), torch.randn(2, 3)
    tied = layer.linear
    parameters = (tied.weight, tied.bias)

    def solved(*_):
        injected = torch.sin(tied(x))
        return fixed_point(lambda z, x: layer(z, x), torch.zeros(2, 3), args=(injected,), **TIGHT).z

    assert gradcheck(solved, parameters)
    assert gradgradcheck(solved, parameters)
    solved().sum().backward()
    assert layer.frozen.grad is None
    assert torch.equal(layer.unused.grad, torch.zeros(3))


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_changes_nothing(training):
    torch.manual_seed(1)
    layer, x = Layer(), torch.randn(4, 3, requires_grad=True)
    found = []
    for mode in (training, not training):
        z, _ = fixed_point(layer.train(mode), torch.zeros(4, 3), args=(x,), **TIGHT)
        found.append([z, *torch.autograd.grad(z.sin().sum(), (x, layer.linear.weight))])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_all_kinds_of_captures_get_their_first_gradient():
    a, b, c = (torch.tensor(v, requires_grad=True) for v in (0.3, 0.2, 0.1))
    held = {"c": [c]}
    derived = b.exp()

    def h(z, a):
        return torch.cos(a * z + derived) * held["c"][0]

    z, _ = fixed_point(functools.partial(h, a=a), torch.zeros(1, 1), **TIGHT)
    gradients = torch.autograd.grad(z.sum(), (a, b, c))
    with torch.no_grad():
        slope = torch.sin(a * z + b.exp()) * c
        exact = [-slope * z, -slope * b.exp(), torch.cos(a * z + b.exp())]
        exact = [value.sum() / (1 + slope * a).sum() for value in exact]
    torch.testing.assert_close(list(gradients), exact, rtol=1e-12, atol=0)


def test_second_derivatives_of_a_captured_tensor_are_refused_by_name():
    rate, x = torch.tensor(0.3, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    z, _ = fixed_point(lambda z, x: torch.cos(rate * z) * x, torch.zeros(1, 1), args=(x,))
    with pytest.raises(ValueError, match=r"f: captures rate, .* second derivatives pass it as args"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


@pytest.mark.parametrize("change", ["captured number", "training mode"])
def test_second_derivatives_of_a_function_that_changed_are_refused(change):
    rate, x, dropout = [0.3], torch.ones(5, 4, requires_grad=True), nn.Dropout(0.5).eval()
    z, _ = fixed_point(lambda z, x: torch.cos(rate[0] * dropout(z)) * x, torch.zeros(5, 4), args=(x,))
    if change == "training mode":
        dropout.train()
    else:
        rate[0] = 0.4
    torch.autograd.grad(z.sum(), x, retain_graph=True)  # the first is of what was evaluated
    with pytest.raises(ValueError, match="f: has another value than when its root was found"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("newton", {}),
        ("newton", {"line_search": Armijo()}),
        ("chord", {}),
        ("newton_krylov", {}),
        ("levenberg_marquardt", {}),
        ("broyden", {"compact": True}),
        ("anderson", {}),
        ("fixed_point", {}),
        (Bisection(torch.full((3, 1), -2.0), torch.full((3, 1), 2.0)), {}),
    ],
    ids=repr,
)
def test_the_gradient_does_not_depend_on_the_search(solver, options):
    a = torch.tensor([[0.3], [0.6], [0.9]], requires_grad=True)
    args = (PerSample(a),)
    z0 = torch.full((3, 1), 0.7, requires_grad=True)
    sol = root_find(lambda z, a: torch.cos(a * z) - z, z0, args=args, solver=solver, **{**TIGHT, **options})
    gradient, of_start = torch.autograd.grad(sol.z.sum(), (a, z0), allow_unused=True)
    sine = torch.sin(a * sol.z)
    torch.testing.assert_close(gradient, -sol.z * sine / (1 + a * sine), rtol=1e-11, atol=0)
    assert of_start is None


def test_a_trained_method_gets_no_gradient():
    solver = NeuralAnderson(m=2)
    x = torch.randn(3, 4, requires_grad=True)
    z, _ = fixed_point(lambda z, x: 0.5 * torch.tanh(z) + x, torch.zeros(3, 4), args=(x,), solver=solver, max_steps=500)
    z.sum().backward()
    assert all(parameter.grad is None for parameter in solver.parameters())
    exact = 1 / (1 - 0.5 / torch.cosh(z.detach()) ** 2)
    torch.testing.assert_close(x.grad, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("linear_solver", ["dense", "gmres"])
def test_states_of_several_dimensions_and_pytrees(linear_solver):
    sensitivity = ImplicitDifferentiation(linear_solver, rtol=1e-13)
    a, b = torch.randn(2, 2, 3, requires_grad=True), torch.randn(2, requires_grad=True)

    def image(a):
        return fixed_point(
            lambda z, a: 0.4 * torch.cos(z.mT @ z @ a),
            torch.zeros(2, 3, 3),
            args=(a,),
            sensitivity=sensitivity,
            **TIGHT,
        ).z

    square = torch.randn(2, 3, 3, requires_grad=True)
    assert gradcheck(image, (square,))

    def tree(a, b):
        def h(z, given):
            mixed = torch.cos(0.3 * z["p"].sum((-1, -2)) * given["b"] + z["q"])
            return {"q": 0.5 * mixed, "p": 0.3 * torch.sin(z["p"]) + z["q"][:, None, None] * given["a"]}

        z0 = {"p": torch.zeros(2, 2, 3), "q": torch.zeros(2)}
        z = fixed_point(h, z0, args=({"a": a, "b": b, "name": "no tensor"},), sensitivity=sensitivity, **TIGHT).z
        return z["p"], z["q"]

    assert gradcheck(tree, (a, b))
    assert gradgradcheck(tree, (a, b))


@pytest.mark.parametrize("linear_solver", ["dense", "gmres"])
def test_complex_states(linear_solver):
    sensitivity = ImplicitDifferentiation(linear_solver, rtol=1e-13)
    a = torch.randn(2, 2, dtype=torch.complex128, requires_grad=True)
    b = torch.randn(2, requires_grad=True)

    def solved(a, b):
        z0 = torch.zeros(2, 2, dtype=torch.complex128)

        def g(z, a, b):
            return z + 0.2 * z.flip(-1) ** 2 + 0.1 * z * b - a

        return root_find(g, z0, args=(a, b), solver="newton", sensitivity=sensitivity, **TIGHT).z

    assert gradcheck(solved, (a, b))
    assert gradgradcheck(solved, (a, b))


def test_half_precision_states():
    a = torch.full((2, 3), 0.5, dtype=torch.bfloat16, requires_grad=True)
    z, _ = fixed_point(lambda z, a: torch.cos(a * z), torch.zeros(2, 3, dtype=torch.bfloat16), args=(a,))
    assert z.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(z.sum(), a)
    wide = z.double()
    sine = torch.sin(0.5 * wide)
    torch.testing.assert_close(gradient.double(), -wide * sine / (1 + 0.5 * sine), rtol=0.02, atol=0)


def test_autocast_of_the_caller():
    """The gradient is that of the function as it was evaluated: in bfloat16, wherever backward is called."""
    weight, x = (0.1 * torch.randn(8, 8)).float().requires_grad_(), torch.randn(4, 8).float()

    def h(z, w):
        return torch.tanh(z @ w + x).float()

    with torch.autocast("cpu", torch.bfloat16):
        z, _ = fixed_point(h, torch.zeros(4, 8).float(), args=(weight,), rtol=1e-2)
    assert z.dtype == torch.float32
    (mixed,) = torch.autograd.grad(z.sum(), weight)
    z, _ = fixed_point(h, torch.zeros(4, 8).float(), args=(weight,))
    (single,) = torch.autograd.grad(z.sum(), weight)
    error = (mixed - single).norm() / single.norm()
    assert 1e-4 < error < 0.05


def test_what_it_costs():
    """One evaluation more than the search, none in the backward pass; memory does not grow with the steps."""
    calls = 0

    def h(z, w, x):
        nonlocal calls
        calls += 1
        return contraction(z, w, x)

    given = inputs(batch=4, size=5)
    saved, steps = [], []
    for rtol in (1e-2, 1e-6, 1e-12):
        calls = size = 0

        def keep(tensor):
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
            z, stats = fixed_point(h, torch.zeros(4, 5), args=given, solver="fixed_point", rtol=rtol, atol=0.0)
        assert calls == stats.n_evals + 1
        torch.autograd.grad(z.sum(), given)
        assert calls == stats.n_evals + 1
        saved.append(size)
        steps.append(int(stats.n_steps.max()))
    assert steps[-1] > 2 * steps[0]
    assert len(set(saved)) == 1


def test_the_error_falls_with_the_tolerance():
    given = inputs(batch=3, size=4)

    def gradient(tolerance):
        sensitivity = ImplicitDifferentiation("gmres", rtol=tolerance)
        z, _ = fixed_point(
            contraction,
            torch.zeros(3, 4),
            args=given,
            solver="fixed_point",
            rtol=tolerance,
            atol=0.0,
            sensitivity=sensitivity,
        )
        return torch.cat([g.flatten() for g in torch.autograd.grad(z.sin().sum(), given)])

    exact = gradient(1e-14)
    tolerances = torch.logspace(-9, -3, 13)
    errors = torch.stack([(gradient(float(t)) - exact).abs().max() for t in tolerances])
    assert (errors < 20 * tolerances).all()
    logs = torch.stack([tolerances.log(), torch.ones(13)], dim=-1)
    slope = torch.linalg.lstsq(logs, errors.log().unsqueeze(-1)).solution[0].item()
    assert 0.8 < slope < 1.2


def test_nothing_is_recorded_where_nothing_is_wanted():
    z, _ = fixed_point(torch.cos, torch.ones(2, 1))
    assert not z.requires_grad
    a = torch.tensor(0.5, requires_grad=True)
    with torch.no_grad():
        assert not fixed_point(lambda z: torch.cos(a * z), torch.ones(2, 1)).z.requires_grad


@pytest.mark.parametrize("linear_solver", ["gmres", "anderson"])
def test_warm_starts(linear_solver):
    """The second pass over the same samples starts from the solution; a batch of another size starts anew."""
    given = inputs(batch=3, size=6)
    sensitivity = ImplicitDifferentiation(linear_solver, warm_start=True)

    def gradients(given):
        z0 = torch.zeros_like(given[1])
        z = fixed_point(contraction, z0, args=given, sensitivity=sensitivity, **TIGHT).z
        found = torch.autograd.grad(z.sum(), given)
        return found, int(sensitivity.last.n_steps.max())

    cold, steps = gradients(given)
    warm, fewer = gradients(given)
    assert (steps > 2, fewer) == (True, 0)
    torch.testing.assert_close(warm, cold, rtol=1e-6, atol=1e-6)
    other = (given[0], torch.randn(5, 6, requires_grad=True))
    assert gradients(other)[1] > 2


def test_the_backward_system_is_reported():
    given = inputs(batch=3, size=6)
    sensitivity = ImplicitDifferentiation(FixedPointLinearSolver("fixed_point", max_steps=2), rtol=1e-10)
    assert sensitivity.last is None
    z, _ = fixed_point(contraction, torch.zeros(3, 6), args=given, sensitivity=sensitivity)
    with pytest.warns(
        UserWarning, match=r"not solved for 3 of 3 samples, with a relative residual of .* by FixedPoint"
    ):
        z.sum().backward()
    assert not sensitivity.last.converged.any()
    assert (sensitivity.last.n_steps == 2).all()
    assert not sensitivity.last.breakdown.any()
    good = ImplicitDifferentiation("gmres")
    z, _ = fixed_point(contraction, torch.zeros(3, 6), args=given, sensitivity=good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z.sum().backward()
    assert good.last.converged.all()


@pytest.mark.parametrize("linear_solver", ["dense", "gmres"])
def test_gradients_that_are_not_finite_stay_so(linear_solver):
    """Loss scaling of mixed precision counts on it."""
    w, x = inputs()
    z, _ = fixed_point(contraction, torch.zeros(2, 3), args=(w, x), sensitivity=ImplicitDifferentiation(linear_solver))
    weight = torch.tensor([[1.0, 1.0, 1.0], [torch.inf, 1.0, 1.0]])
    grad_w, grad_x = torch.autograd.grad((weight * z).sum(), (w, x))
    assert torch.isfinite(grad_x[0]).all()
    assert not torch.isfinite(grad_x[1]).any()
    assert not torch.isfinite(grad_w).any()


def test_batched_gradients():
    w, x = inputs()
    for linear_solver in ("dense", "gmres", "anderson"):
        sensitivity = ImplicitDifferentiation(linear_solver, rtol=1e-13)
        z, _ = fixed_point(contraction, torch.zeros(2, 3), args=(w, x), sensitivity=sensitivity, **TIGHT)
        unit = torch.eye(6).reshape(6, 2, 3)

        def pull(v, z=z):
            return torch.autograd.grad(z, w, v, retain_graph=True)[0]

        torch.testing.assert_close(
            torch.func.vmap(pull)(unit), torch.stack([pull(v) for v in unit]), rtol=0, atol=1e-12
        )


def test_algorithms_copy_and_pickle():
    sensitivity = ImplicitDifferentiation("gmres", rtol=1e-9, warm_start=True)
    for twin in (copy.deepcopy(sensitivity), pickle.loads(pickle.dumps(sensitivity))):
        assert repr(twin) == repr(sensitivity)


def test_a_module_that_occurs_twice_stays_whole():
    """Second derivatives put other tensors in the places of its parameters, which have to come back."""
    layer = nn.Linear(2, 2).double()
    net = nn.Sequential(layer, nn.Tanh(), layer)
    before = layer.weight
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    z, _ = fixed_point(lambda z, x: 0.3 * net(z) + x, torch.zeros(3, 2).double(), args=(x,), sensitivity="implicit")
    (first,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    torch.autograd.grad(first.square().sum(), [x, *net.parameters()])
    assert layer.weight is before
    assert type(layer.weight) is nn.Parameter
