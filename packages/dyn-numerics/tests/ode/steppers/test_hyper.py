"""Hypersolvers: order, structure of what the network sees, gradients to it, and every way of stepping."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from dyn_numerics import (
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    FixedStep,
    Heun,
    HyperStepper,
    Midpoint,
    PerSample,
    PIDController,
    RungeKutta2,
    RungeKutta4,
    Save,
    Tsit5,
    Vern7,
    odeint,
)
from dyn_numerics.loop import is_supported

D = torch.float64
GRID = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.1], dtype=D)
BASES = [Euler(), Midpoint(), Heun(), RungeKutta4(), RungeKutta2(0.7), Bosh3(), Dopri5(), Tsit5(), Vern7(), Dopri8()]
BASES += [Euler(trainable=True), Dopri5(trainable=True)]

each_base = pytest.mark.parametrize("base", BASES, ids=repr)
both_steppings = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
both_directions = pytest.mark.parametrize("span", [GRID, GRID.flip(0)], ids=["forward", "reversed"])


def forced(t, x):
    return torch.sin(3 * t) - x**2


def start(batch=3):
    return torch.linspace(0.3, 1.0, 2 * batch, dtype=D).reshape(batch, 2)


def nothing(t, x, f):
    return torch.zeros_like(x)


class Net(nn.Module):
    """A small network of the time, the state and the slope, for states `[..., 2]`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 2, dtype=D)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-0.4, 0.5, 10, dtype=D).reshape(2, 5))
            self.layer.bias.fill_(0.1)

    def forward(self, t, x, f):
        return self.layer(torch.cat([t.expand_as(x[..., :1]), x, f], -1)).tanh()


@each_base
@both_directions
@both_steppings
def test_with_nothing_to_add_it_is_its_base(base, span, stepping):
    options = {"controller": FixedStep(), "stepping": stepping}
    with torch.no_grad():
        found = odeint(forced, start(), span, solver=HyperStepper(base, nothing), **options)
        expected = odeint(forced, start(), span, solver=base, **options)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("base", [Bosh3(), Dopri5(), Tsit5(), Vern7(), Dopri8()], ids=repr)
@both_directions
@both_steppings
def test_with_nothing_to_add_it_takes_the_steps_of_its_base(base, span, stepping):
    options = {"rtol": 1e-7, "atol": 1e-9, "save": "steps", "stepping": stepping}
    found = odeint(forced, start(), span, solver=HyperStepper(base, nothing), **options)
    expected = odeint(forced, start(), span, solver=base, **options)
    torch.testing.assert_close(found.t, expected.t, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-10, atol=0)


def second_derivative(t, x, f):
    """`x'' / 2` of `x' = x cos t`: the leading term of Euler's local error."""
    return (f * torch.cos(t) - x * torch.sin(t)) / 2


@pytest.mark.parametrize(("net", "order"), [(second_derivative, 2), (nothing, 1), (lambda t, x, f: -f, 1)])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_order_of_hypereuler(net, order, reverse, growth, fitted_order):
    """One more than Euler's with the leading term of its error; with any other, Euler's."""
    length = 1.0 if order == 2 else 0.1
    first, last = (length, 0.0) if reverse else (0.0, length)

    def error(steps):
        t = torch.linspace(first, last, steps + 1, dtype=D)
        x = odeint(growth, torch.ones(1, dtype=D), t, solver=HyperStepper(Euler(), net)).x[:, 0]
        return (x - growth.exact(t, first)).abs().max().item()

    assert fitted_order(error) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_order_over_a_base_of_even_order(reverse, fitted_order):
    """The midpoint method leaves `x''' / 6` of `x' = -x`, to the third power of a step that may be negative."""
    first, last = (1.0, 0.0) if reverse else (0.0, 1.0)
    solver = HyperStepper(Midpoint(), lambda t, x, f: f / 6)

    def error(steps):
        t = torch.linspace(first, last, steps + 1, dtype=D)
        x = odeint(lambda t, x: -x, torch.ones(1, dtype=D), t, solver=solver).x[:, 0]
        return (x - torch.exp(first - t)).abs().max().item()

    assert fitted_order(error) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_dense_output_follows_the_corrected_states(reverse, growth, fitted_order):
    first, last = (1.0, 0.0) if reverse else (0.0, 1.0)
    solver = HyperStepper(Euler(), second_derivative)

    def error(steps):
        grid = torch.linspace(first, last, steps + 1, dtype=D)
        sol = odeint(growth, torch.ones(1, dtype=D), grid, solver=solver, save="dense")
        torch.testing.assert_close(sol.dense(grid), sol.x, rtol=1e-13, atol=0)
        slopes = growth(grid.unsqueeze(-1), sol.x)
        torch.testing.assert_close(sol.dense.derivative(grid), slopes, rtol=1e-10, atol=1e-12)
        t = first + (last - first) * (torch.arange(5 * steps, dtype=D) + 0.3) / (5 * steps)
        return (sol.dense(t)[:, 0] - growth.exact(t, first)).abs().max().item()

    assert fitted_order(error, most_steps=300) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("base", [Dopri5(), Bosh3(), Dopri8()], ids=repr)
@pytest.mark.parametrize("dt", [0.1, -0.1])
def test_the_correction_counts_in_the_error_and_ends_in_no_reused_stage(base, dt):
    x, solver = start(1)[0], HyperStepper(base, lambda t, x, f: 3 * x + f + t)
    with torch.no_grad():
        plain, step = base.step(forced, 0.5, 0.5 + dt, x, None), solver.step(forced, 0.5, 0.5 + dt, x, None)
        correction = dt ** (base.order + 1) * (3 * x + forced(torch.tensor(0.5, dtype=D), x) + 0.5)
        torch.testing.assert_close(step.x - plain.x, correction, rtol=1e-6, atol=1e-15)
        torch.testing.assert_close(step.error - plain.error, correction, rtol=1e-6, atol=1e-15)
        assert step.carry is None
        done = solver.complete(forced, 0.5 + dt, step)
        torch.testing.assert_close(done.carry, forced(torch.tensor(0.5 + dt, dtype=D), step.x), rtol=1e-14, atol=0)


@both_steppings
def test_a_wrong_network_makes_steps_shorter(stepping):
    options = {"rtol": 1e-6, "atol": 1e-6, "stepping": stepping}
    x0, span, fine = start(), [0.0, 2.0], {"rtol": 1e-12, "atol": 1e-12}
    exact = odeint(forced, x0, span, **fine).x[-1]
    wild = HyperStepper(Dopri5(), lambda t, x, f: 1e3 * torch.ones_like(x))
    found, plain = (
        odeint(forced, x0, span, solver=wild, **options),
        odeint(forced, x0, span, solver="dopri5", **options),
    )
    assert (found.stats.n_accepted > 1.5 * plain.stats.n_accepted).all()
    assert (found.x[-1] - exact).abs().max() < 1e-4


STATES = {
    "vector": lambda: start(1)[0],
    "scalar": lambda: torch.tensor(0.4, dtype=D),
    "matrix": lambda: start(4).reshape(2, 4),
    "pytree": lambda: {"q": start(2), "p": (torch.ones(2, dtype=D), torch.ones(2, 1, 3, dtype=D))},
}


@pytest.mark.parametrize("state", STATES)
def test_the_network_sees_what_the_field_sees(state):
    x0, seen = STATES[state](), []

    def shapes(x):
        return [(tuple(leaf.shape), leaf.dtype) for leaf in tree_leaves(x)], tree_structure(x)

    def net(t, x, f):
        seen.append((t.shape, t.dtype, shapes(x), shapes(f)))
        assert all(torch.equal(a, -b) for a, b in zip(tree_leaves(x), tree_leaves(f), strict=True))
        return tree_map(torch.zeros_like, x)

    odeint(lambda t, x: tree_map(torch.neg, x), x0, [0.0, 0.1, 0.2], solver=HyperStepper(Euler(), net))
    assert seen == [(torch.Size(), D, shapes(x0), shapes(x0))] * 2


@pytest.mark.parametrize(
    ("state", "shape"), [("vector", [2]), ("matrix", [2, 1]), ("pytree", [2])], ids=["vector", "matrix", "pytree"]
)
def test_times_of_samples_reach_the_network_as_they_reach_the_field(state, shape):
    x0, seen = STATES[state](), []

    def net(t, x, f):
        seen.append(t)
        return tree_map(torch.zeros_like, x)

    def field(t, x):
        assert list(t.shape) == shape
        return tree_map(torch.neg, x)

    spans = torch.tensor([[0.0, 1.0], [0.2, 0.8]], dtype=D)
    odeint(field, x0, spans, solver=HyperStepper(Euler(), net), stepping="per_sample")
    assert [t.reshape(-1).tolist() for t in seen] == [[0.0, 1.0]]
    assert list(seen[0].shape) == shape


@pytest.mark.parametrize("span", [[0.0, 2.0], [2.0, 0.0]], ids=["forward", "reversed"])
@pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("compact", [False, True])
def test_each_sample_is_solved_as_if_it_were_alone(span, adaptive, compact):
    solver = HyperStepper(Dopri5(), Net())
    rates = torch.tensor([0.5, 3.0, 20.0], dtype=D)

    def field(t, x, rate):
        return rate.unsqueeze(-1) * (torch.cos(t) - x) * 0.2

    options = {"solver": solver, "rtol": 1e-6, "atol": 1e-8, "stepping": "per_sample"}
    options |= {} if adaptive else {"step_size": 0.3}
    with torch.no_grad():
        found = odeint(field, start(), span, args=(PerSample(rates),), compact=compact, **options)
        for i in range(3):
            alone = odeint(field, start()[i : i + 1], span, args=(PerSample(rates[i : i + 1]),), **options)
            torch.testing.assert_close(found.x[:, i], alone.x[:, 0], rtol=1e-13, atol=1e-14)
            assert found.stats.n_steps[i] == alone.stats.n_steps[0]


WAYS = {
    "a grid": {"t_span": GRID},
    "a grid in reversed time": {"t_span": GRID.flip(0)},
    "interpolated": {"t_span": GRID, "step_size": 0.15},
    "adaptive": {"t_span": GRID, "base": Bosh3, "rtol": 1e-4},
    "steps": {"t_span": GRID, "base": Bosh3, "rtol": 1e-4, "save": "steps"},
    "internals": {"t_span": GRID, "base": Bosh3, "rtol": 1e-4, "save": Save(internals=True)},
}


def steps_at_most(options):
    """Tolerances so loose that every step is as long as it may, so that differences see the same steps."""
    if "base" not in options:
        return {}
    return {"rtol": 1e3, "atol": 1e3, "controller": PIDController(first_step=0.11, max_step=0.11)}


@pytest.mark.parametrize("way", WAYS)
@both_steppings
def test_gradients_to_the_network_against_finite_differences(way, stepping):
    options = dict(WAYS[way])
    base, t_span = options.pop("base", Euler)(), options.pop("t_span")
    options |= steps_at_most(WAYS[way])
    net = Net()

    def loss():
        sol = odeint(forced, start(), t_span, solver=HyperStepper(base, net), stepping=stepping, **options)
        return sol.x.square().sum() + (0 if sol.internals is None else 1e3 * sol.internals.error.sum())

    loss().backward()
    h = 1e-5
    for parameter in net.parameters():
        flat, grad = parameter.detach().view(-1), parameter.grad.view(-1)
        for i in range(0, flat.numel(), 3):
            with torch.no_grad():
                flat[i] += h
                above = loss()
                flat[i] -= 2 * h
                below = loss()
                flat[i] += h
            assert grad[i].item() == pytest.approx(((above - below) / (2 * h)).item(), rel=1e-6, abs=1e-9)
    assert net.layer.weight.grad.abs().max() > 1e-3


@both_steppings
def test_gradients_to_the_network_and_its_base_together(stepping):
    solver = HyperStepper(RungeKutta2(0.6, trainable=True), Net())
    assert {name for name, _ in solver.named_parameters()} == {"base.alpha", "net.layer.weight", "net.layer.bias"}
    odeint(forced, start(), GRID, solver=solver, stepping=stepping).x.sum().backward()
    assert all(p.grad.abs().max() > 1e-5 for p in solver.parameters())


@both_steppings
@pytest.mark.parametrize("steps", [1, 4])
def test_what_a_function_captures_gets_its_gradient(stepping, steps):
    scale = torch.tensor(0.5, dtype=D, requires_grad=True)
    solver = HyperStepper(Euler(), lambda t, x, f: scale * x)
    t = torch.linspace(0, 1, steps + 1, dtype=D)
    found = odeint(lambda t, x: torch.ones_like(x), start(), t, solver=solver, stepping=stepping).x[-1].sum()
    dt = 1 / steps
    (grad,) = torch.autograd.grad(found, scale)

    def solve(scale):
        x = start()
        for _ in range(steps):
            x = x + dt + dt**2 * scale * x
        return x.sum()

    h = 1e-4
    assert grad.item() == pytest.approx(((solve(0.5 + h) - solve(0.5 - h)) / (2 * h)).item(), rel=1e-7)


def test_training_finds_the_error_that_euler_makes():
    """Of `x' = A x` it leaves `A^2 x / 2`, which is `A f / 2`."""
    a = torch.tensor([[0.0, 1.0], [-1.0, -0.2]], dtype=D)
    layer = nn.Linear(2, 2, bias=False, dtype=D)
    with torch.no_grad():
        layer.weight.zero_()
    solver = HyperStepper(Euler(), lambda t, x, f: layer(f))
    t, dt = [0.0, 0.1], 0.1
    exact = start() @ torch.linalg.matrix_exp(a * dt).T
    optimizer = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe", max_iter=50, tolerance_grad=0)
    optimizer.param_groups[0]["tolerance_change"] = 0

    def closure():
        optimizer.zero_grad()
        x = odeint(lambda t, x: x @ a.T, start(), t, solver=solver).x[-1]
        residual = ((x - exact) / dt**2).square().sum()
        residual.backward()
        return residual

    before = closure()
    optimizer.step(closure)
    torch.testing.assert_close(layer.weight, a / 2, rtol=0, atol=0.05)  # and the next term, of size dt / 6
    assert closure() < 1e-9 * before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64, torch.complex128])
def test_dtypes(dtype):
    solver = HyperStepper(Euler(), lambda t, x, f: -f / 2)
    x0 = torch.tensor([1.0, 0.5], dtype=dtype)
    sol = odeint(lambda t, x: -x, x0, torch.linspace(0, 1, 9), solver=solver)
    assert sol.x.dtype == dtype
    expected = x0.to(torch.complex128) * (1 - 1 / 8 + 1 / 128) ** 8
    size = torch.finfo(dtype).eps * 10
    torch.testing.assert_close(sol.x[-1].to(torch.complex128), expected, rtol=size, atol=0)


def test_it_computes_outside_of_autocast():
    net, field = Net().float(), nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sol = odeint(lambda t, x: field(x).float(), start().float(), [0.0, 0.5], solver=HyperStepper(Euler(), net))
    with torch.no_grad():
        f = field.to(torch.bfloat16)(start().to(torch.bfloat16)).float()
        expected = start().float() + 0.5 * f + 0.25 * net(torch.tensor(0.0), start().float(), f)
    torch.testing.assert_close(sol.x[-1], expected)


def test_one_solver_serves_states_of_any_structure():
    solver = HyperStepper(Euler(), lambda t, x, f: tree_map(torch.zeros_like, x))
    for make in (*STATES.values(), *STATES.values()):
        odeint(lambda t, x: tree_map(torch.neg, x), make(), [0.0, 0.1], solver=solver)
    step = solver.step(lambda t, x: -x, 0.0, 0.1, start(), None)  # states as vectors, where nobody said otherwise
    torch.testing.assert_close(step.x, 0.9 * start(), rtol=1e-15, atol=0)


def test_copies():
    solver = HyperStepper(Heun(trainable=True), Net())
    expected = odeint(forced, start(), GRID, solver=solver).x
    other = HyperStepper(Heun(trainable=True), Net().requires_grad_(False))
    other.load_state_dict(solver.state_dict())
    for twin in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver)), other):
        assert torch.equal(odeint(forced, start(), GRID, solver=twin).x, expected)


def test_evaluations(counted):
    for base, per_step in ((Euler(), 1), (Dopri5(), 7)):
        field = counted(forced)
        sol = odeint(field, start(), GRID, solver=HyperStepper(base, nothing), controller=FixedStep())
        assert field.calls == sol.stats.n_evals == per_step * (len(GRID) - 1)
    field = counted(forced)
    sol = odeint(field, start(), [0.0, 1.0], solver=HyperStepper(Dopri5(), nothing), rtol=1e-6)
    # The end of each accepted step is the start of the next: 6 + 1 new ones each, 6 in a rejected one; 2 at the start.
    assert field.calls == sol.stats.n_evals == 2 + 6 * sol.stats.n_steps + sol.stats.n_accepted


def test_transforms():
    solver, x0 = HyperStepper(Bosh3(), Net().requires_grad_(False)), start()

    def final(x):
        return odeint(forced, x, [0.0, 1.0], solver=solver, rtol=1e-6).x[-1]

    one_by_one = torch.stack([final(x) for x in x0])
    torch.testing.assert_close(torch.func.vmap(final)(x0), one_by_one, rtol=1e-12, atol=0)
    jacobian = torch.func.jacfwd(final)(x0[0])
    torch.testing.assert_close(jacobian, torch.func.jacrev(final)(x0[0]), rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.parametrize("base", [Euler(), Bosh3()], ids=repr)
@both_steppings
def test_inside_a_compiled_program(base, stepping):
    torch._dynamo.reset()
    solver = HyperStepper(base, Net())

    def solve(x0):
        sol = odeint(forced, x0, GRID, solver=solver, stepping=stepping, rtol=1e-6)
        return sol.x, sol.stats.n_steps

    with torch.no_grad():
        x, steps = torch.compile(solve, fullgraph=True, backend="aot_eager")(start())
        expected, expected_steps = solve(start())
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(steps, expected_steps)


WRONG = {
    "shape": (lambda t, x, f: x[:1], ValueError, r"net: returned shape \[1, 2\], expected \[3, 2\] as the state"),
    "dtype": (lambda t, x, f: x.float(), TypeError, r"net: returned dtype torch.float32, expected torch.float64"),
    "structure": (lambda t, x, f: (x, f), TypeError, r"net: returned a tuple, expected a tensor"),
    "device": (lambda t, x, f: x.to("meta"), ValueError, r"net: returned device meta, expected cpu"),
}


@pytest.mark.parametrize("what", WRONG)
@both_steppings
def test_a_network_that_returns_something_else(what, stepping):
    net, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        odeint(forced, start(), [0.0, 1.0], solver=HyperStepper(Euler(), net), stepping=stepping)


def test_a_network_that_returns_another_pytree():
    solver = HyperStepper(Euler(), lambda t, x, f: x["q"])
    with pytest.raises(TypeError, match=r"net: returned a tensor, expected .*dict"):
        odeint(lambda t, x: x, {"q": start()}, [0.0, 1.0], solver=solver)


@pytest.mark.parametrize("base", ["euler", Euler, HyperStepper(Euler(), nothing), None])
def test_bases_that_are_none(base):
    with pytest.raises(TypeError, match=r"base: got (a|the class) \w+, expected an explicit Runge-Kutta method"):
        HyperStepper(base, nothing)


@pytest.mark.parametrize("net", [None, Net])
def test_networks_that_are_none(net):
    with pytest.raises(
        TypeError, match=r"net: got (a NoneType|the class Net), expected a module or function net\(t, x, f"
    ):
        HyperStepper(Euler(), net)


def test_a_network_may_write_into_what_it_gets():
    """It has a copy; neither the solve nor the user's state notices."""

    def writes(t, x, f):
        return x.clamp_(max=0.5)

    x0 = torch.ones(2, 1, dtype=torch.float64)
    found = odeint(lambda t, x: -x, x0, [0.0, 0.1, 0.2], solver=HyperStepper(Euler(), writes)).x
    expected = odeint(
        lambda t, x: -x, x0, [0.0, 0.1, 0.2], solver=HyperStepper(Euler(), lambda t, x, f: x.clamp(max=0.5))
    ).x
    assert torch.equal(found, expected)
    assert torch.equal(x0, torch.ones_like(x0))
