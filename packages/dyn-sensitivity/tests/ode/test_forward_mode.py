"""Gradients by tangents: those of the accepted steps, as far as they reach, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import jacfwd, jvp

from dyn_numerics import Event, FixedStep, Heun, HyperStepper, PerSample, PIDController, Save, SplitField, StopAt, Tsit5
from dyn_sensitivity import ForwardMode, odeint

T_SPAN = [0.1, 0.5, 1.3]


def mlp():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def leaf(*shape, **options):
    return torch.randn(shape, **options).requires_grad_()


def loss(solution):
    x = solution.x[1:]
    return (torch.linspace(0.5, 1.5, x.numel()).reshape(x.shape) * (x.real.sin() + x.abs().square())).sum()


def assert_as_autograd(solve, inputs, tolerance=1e-12):
    """A solve's gradient is that of the accepted steps, which autograd has; and it is not zero."""
    found = torch.autograd.grad(loss(solve("forward")), inputs)
    expected = torch.autograd.grad(loss(solve("autograd")), inputs)
    assert all(g.abs().max() > 1e-5 for g in expected)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


SOLVERS = {
    "tsit5": {},
    "dopri8, reversed": {"solver": "dopri8", "t_span": [1.3, 0.5, 0.1]},
    "rk4 on t_span": {"solver": "rk4"},
    "rk4 on steps": {"solver": "rk4", "step_size": 0.3},
    "kvaerno3": {"solver": "kvaerno3", "rtol": 1e-2},
    "rodas5p": {"solver": "rodas5p", "rtol": 1e-2},
    "reversible_heun": {"solver": "reversible_heun", "rtol": 1e-2},
    "adams_bashforth": {"solver": "adams_bashforth", "step_size": 0.3},
    "per sample": {"stepping": "per_sample"},
}


@pytest.mark.parametrize("which", SOLVERS)
def test_is_the_gradient_of_the_accepted_steps(which):
    net, x0, a = mlp(), leaf(2, 2), leaf(2, 2)
    options = {"t_span": T_SPAN} | SOLVERS[which]
    t_span = torch.tensor(options.pop("t_span"), requires_grad=True)

    def solve(sensitivity, **more):
        f = lambda t, x, a: net(x) + torch.sin(3 * t) * x @ a  # noqa: E731
        return odeint(f, x0, t_span, args=(a,), sensitivity=sensitivity, **options)

    assert_as_autograd(solve, [x0, a, t_span, *net.parameters()], 1e-10)


def test_a_split_field():
    spring, x0 = nn.Linear(2, 2), (leaf(2), leaf(2))
    field = SplitField(lambda t, p: p.sin(), lambda t, q: -spring(q))

    def solve(sensitivity):
        sol = odeint(field, x0, T_SPAN, sensitivity=sensitivity, solver="verlet", step_size=0.2)
        return type(sol)(**{**vars(sol), "x": torch.cat(sol.x, -1)})

    assert_as_autograd(solve, [*x0, *spring.parameters()])


COMPLEX = [(torch.complex128, 1 + 0.5j), (torch.complex128, 0.5 - 1j), (torch.float64, 1)]


def test_complex_inputs_and_states():
    x0, a, b = (torch.linspace(0.2, 0.6, 3).to(kind).mul(z).requires_grad_() for kind, z in COMPLEX)
    f = lambda t, x, a, b: 1j * a * x - b * x * x.abs() + t * x.conj()  # noqa: E731
    assert_as_autograd(lambda s: odeint(f, x0, T_SPAN, args=(a, b), sensitivity=s), [x0, a, b])


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_in_chunks(chunk_size):
    net, x0 = mlp(), leaf(2)

    def solve(sensitivity):
        sensitivity = ForwardMode(chunk_size=chunk_size) if sensitivity == "forward" else sensitivity
        return odeint(lambda t, x: net(x), x0, T_SPAN, sensitivity=sensitivity, solver="rk4")

    assert_as_autograd(solve, [x0, net[0].weight])


def test_reaches_what_is_held_in_several_ways():
    """A state that is an argument and a capture too, an argument that is a parameter, and one in a container."""
    x0, net, w, scale = leaf(2), nn.Linear(2, 2), leaf(2, 2), leaf(3)
    f = lambda t, x, a, b, c: net(x) + x @ b * c["scale"].sum() - a * x0 + x @ torch.stack([w, w]).sum(0)  # noqa: E731
    args = (x0, net.weight, {"scale": scale, "name": "linear"})
    found = odeint(f, x0, T_SPAN, args=args, params=(w,), sensitivity="forward")
    expected = odeint(f, x0, T_SPAN, args=args, sensitivity="autograd")
    inputs = [x0, *net.parameters(), w, scale]
    gradients = (torch.autograd.grad(loss(solution), inputs) for solution in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_reaches_a_trainable_table_and_a_hypersolver():
    class Correction(nn.Linear):
        def forward(self, t, x, slope):
            return super().forward(x)

    x0 = leaf(2)
    for solver in (Tsit5(trainable=True), HyperStepper(Heun(), Correction(2, 2))):
        solve = lambda s, solver=solver: odeint(  # noqa: E731
            lambda t, x: torch.cos(x) * t, x0, T_SPAN, sensitivity=s, solver=solver, controller=FixedStep()
        )
        assert_as_autograd(solve, [x0, *solver.parameters()])


def test_samples_have_their_own_times_and_args():
    x0, a, ends = leaf(3, 2), leaf(3), torch.tensor([1.0, -0.4, 0.7], requires_grad=True)

    def solve(sensitivity):
        t_span = torch.linspace(0, 1, 3)[:, None] * ends
        options = {"stepping": "per_sample", "sensitivity": sensitivity, "args": (PerSample(a),)}
        return odeint(lambda t, x, a: a[:, None] * torch.sin(x) * t, x0, t_span, **options)

    assert_as_autograd(solve, [x0, a, ends])


def test_a_sample_that_fails_leaves_its_neighbours_alone():
    x0, a = torch.tensor([[0.5], [2.0]], requires_grad=True), torch.tensor(1.0, requires_grad=True)
    options = {"args": (a,), "stepping": "per_sample", "throw": False, "sensitivity": "forward"}
    sol = odeint(lambda t, x, a: torch.where(x > 1.5, torch.nan, a * x), x0, [0.0, 0.5], **options, rtol=1e-8)
    assert sol.x[-1].isfinite().flatten().tolist() == [True, False]
    gradients = torch.autograd.grad(sol.x[-1].sum(), [x0, a])
    expected = torch.exp(torch.tensor(0.5))
    torch.testing.assert_close(gradients[0], torch.stack([expected, 0 * expected])[:, None], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients[1], 0.25 * expected, rtol=1e-6, atol=0)


def test_events_and_all_that_follows_them():
    """Times, states and what a bounce does to them, also of the parameters of condition and jump."""
    x0, height, loss_of_speed = leaf(2), torch.tensor(0.1, requires_grad=True), nn.Linear(1, 1, bias=False)

    def solve(sensitivity):
        floor = Event(
            lambda t, x, h: x[0] - h,
            direction=-1,
            jump=lambda t, x, h: torch.stack([x[0], -loss_of_speed.weight[0, 0] * x[1]]),
        )
        start = torch.stack([1 + x0[0].square(), x0[1]])
        f = lambda t, x, h: torch.stack([x[1], -5 - 0 * x[0]])  # noqa: E731
        return odeint(f, start, [0.0, 0.5, 1.2], args=(height,), events=floor, sensitivity=sensitivity, rtol=1e-8)

    inputs = [x0, height, loss_of_speed.weight]
    results = []
    for sensitivity in ("forward", "autograd"):
        sol = solve(sensitivity)
        assert sol.events[0].count >= 1
        record = sol.events[0]
        results.append(torch.autograd.grad(loss(sol) + record.t.sum() + record.x_after.square().sum(), inputs))
    assert all(g.abs().max() > 1e-3 for g in results[1])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_steps():
    x0, saved = leaf(4), {}
    for n in (5, 25):
        sizes = saved.setdefault(n, [])
        keep = lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity="forward", solver="rk4", step_size=1 / n)
    assert sum(saved[5]) == sum(saved[25]) > 0


def test_the_values_are_those_of_one_solve_and_all_evaluations_count():
    """The steps are repeated once without derivatives, and once with those of every chunk."""
    calls, counts, x0 = [], {}, leaf(2)

    def f(t, x):
        calls.append(t)
        return -x

    with torch.no_grad():
        plain = odeint(f, x0, T_SPAN)
    for chunk_size in (1, 2):
        calls.clear()
        sol = odeint(f, x0, T_SPAN, sensitivity=ForwardMode(chunk_size=chunk_size))
        counts[chunk_size] = len(calls)
        assert sol.stats.n_evals == len(calls)
        torch.testing.assert_close(sol.x, plain.x, rtol=1e-13, atol=1e-15)
    of_steps = counts[1] - counts[2]
    assert of_steps > 0
    assert counts[2] == plain.stats.n_evals + 2 * of_steps


@pytest.mark.parametrize("save", ["steps", "dense", Save(fn=lambda t, x: x.square().sum())])
def test_whatever_is_kept_has_gradients(save):
    net, x0, found = nn.Linear(2, 2), leaf(2), []
    for sensitivity in ("forward", "autograd"):
        sol = odeint(lambda t, x: net(x).sin(), x0, T_SPAN, sensitivity=sensitivity, save=save)
        kept = sol.dense(0.77) if save == "dense" else sol.x[1:]
        found.append(torch.autograd.grad(kept.sin().sum(), [x0, *net.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_random_field_draws_the_same_numbers_again():
    """The gradient of x(1) = x0 prod (1 + dt m_i), with a mask m_i for every step, is x(1) / x0."""
    x0 = torch.ones(64, requires_grad=True)
    mask = nn.Dropout(0.5)
    options = {"solver": "euler", "step_size": 0.25, "sensitivity": "forward"}
    x = odeint(lambda t, x: mask(x), x0, [0.0, 1.0], **options).x[-1]
    assert x.unique().numel() > 2
    (gradient,) = torch.autograd.grad(x.sum(), x0)
    torch.testing.assert_close(gradient, x.detach())


def test_transforms_and_dual_numbers_pass_through():
    a, x0 = torch.tensor(0.7), torch.tensor([1.0])

    def end(a):
        return odeint(lambda t, x: -a * x, x0, [0.0, 1.0], sensitivity="forward", rtol=1e-9, atol=1e-9).x[-1]

    expected = -torch.exp(-a) * x0
    torch.testing.assert_close(jvp(end, (a,), (torch.ones(()),))[1], expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(jacfwd(end)(a), expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(jacfwd(jacfwd(end))(a), -expected, rtol=1e-6, atol=0)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(end(forward_ad.make_dual(a, torch.ones(())))).tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-7, atol=0)


def branches(t, x):
    return -x if t < 0.5 and x[0] > 0 else -2 * x


def writes_in_place(t, x):
    slope = torch.empty(2)
    slope[0], slope[1] = x[1], -x[0] * t
    return slope


def reads_numbers(t, x):
    return -x * float(t)


@pytest.mark.parametrize("f", [branches, writes_in_place, reads_numbers])
def test_a_field_may_be_any_python(f):
    x0 = torch.tensor([1.0, 2.0], requires_grad=True)
    assert_as_autograd(lambda s: odeint(f, x0, T_SPAN, sensitivity=s, solver="rk4", step_size=0.1), [x0])


class Doubled(torch.autograd.Function):
    """Has no forward-mode derivative."""

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def asks_for_gradients(t, x):
    with torch.enable_grad():
        return torch.autograd.grad(x.requires_grad_().square().sum(), x, create_graph=True)[0]


hidden = torch.tensor(0.5, requires_grad=True)
scripted = torch.jit.script(nn.Linear(2, 2).double())
linear = nn.Linear(2, 2).double()
learned = PIDController()
learned.gain = nn.Parameter(torch.ones(()))

REFUSED = {
    "an operation without": (
        "f: cannot be differentiated in forward mode .*Doubled",
        {"f": lambda t, x: Doubled.apply(x)},
    ),
    "a field that differentiates": ("f: cannot be differentiated in forward mode", {"f": asks_for_gradients}),
    "a captured tensor": ("f: captures hidden,", {"f": lambda t, x: hidden * x}),
    "a scripted module": (r"f: captures a tensor of shape \[2, 2\]", {"f": lambda t, x: scripted(x)}),
    "many inputs": (
        r"got 'forward' with 8 elements that want gradients \(2 of x0, 6 of parameters\), expected at most 5",
        {"f": lambda t, x: linear(x), "sensitivity": ForwardMode(max_inputs=5)},
    ),
    "a trained controller": (
        "controller: got PIDController.* with parameters that are trained",
        {"controller": learned},
    ),
    "estimates": ("save: got internals=True with sensitivity='forward'", {"save": Save(internals=True)}),
    "a shrinking batch": ("compact: got True", {"compact": True, "stepping": "per_sample"}),
    "an event that captures": (
        r"^events\[0\].condition: captures hidden,",
        {"events": Event(lambda t, x: t - hidden)},
    ),
    "a jump that captures": (
        r"^controller.jump: captures hidden,",
        {"controller": StopAt([0.5], jump=lambda t, x: hidden * x)},
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_it_cannot_differentiate_is_refused(which):
    match, change = REFUSED[which]
    good = {"f": lambda t, x: -x, "x0": leaf(2), "t_span": [0.0, 1.0], "sensitivity": "forward"}
    with pytest.raises(ValueError, match=match):
        odeint(**good | change)


def test_is_not_differentiated_again():
    x0 = leaf(2)
    (gradient,) = torch.autograd.grad(
        odeint(lambda t, x: -x * x, x0, [0.0, 1.0], sensitivity="forward").x[-1].sum(), x0, create_graph=True
    )
    with pytest.raises(RuntimeError, match="sensitivity='forward': its gradient was differentiated again"):
        gradient.sum().backward()


def test_settings():
    assert repr(ForwardMode(chunk_size=3)) == "ForwardMode(chunk_size=3, max_inputs=1000)"
    with pytest.raises(ValueError, match="chunk_size: got 0, expected a positive integer"):
        ForwardMode(chunk_size=0)
    with pytest.raises(ValueError, match=r"max_inputs: got .*, expected a positive integer"):
        ForwardMode(max_inputs=2.5)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"])
def test_on_a_gpu_as_on_the_cpu(device):
    def gradients(device):
        torch.manual_seed(0)
        net, x0 = mlp().to(device), torch.linspace(-1, 1, 4).reshape(2, 2).to(device).requires_grad_()
        t_span = torch.tensor(T_SPAN, requires_grad=True)
        solution = odeint(lambda t, x: net(x) * torch.cos(t), x0, t_span, sensitivity="forward", rtol=1e-8)
        return [g.cpu() for g in torch.autograd.grad(solution.x.square().sum(), [x0, t_span, *net.parameters()])]

    torch.testing.assert_close(gradients(device), gradients("cpu"), rtol=1e-7, atol=1e-8)
