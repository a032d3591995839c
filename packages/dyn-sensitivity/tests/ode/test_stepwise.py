"""`checkpoint` and `reversible`: the gradients of `autograd`, from single steps."""

import warnings
from functools import partial
from types import SimpleNamespace
from weakref import WeakSet

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import dyn_numerics
from dyn_numerics import (
    Event,
    HyperStepper,
    PerSample,
    ReversibleRungeKutta,
    RungeKutta2,
    Save,
    SplitField,
    StopAt,
)
from dyn_sensitivity import RecursiveCheckpoint, Reversible, odeint
from dyn_sensitivity.ode.recursive_checkpoint import steps_to_checkpoint

FEW = RecursiveCheckpoint(3)
TIGHT = {"rtol": 1e-6, "atol": 1e-6}
TIMES = [0.0, 0.3, 0.55, 1.0]


class Forced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return scale * self.net(x) + torch.sin(3 * t)


def weighted(x: Tensor) -> Tensor:
    return (x * torch.linspace(0.5, 1.5, x.numel()).reshape(x.shape)).sin().sum()


def assert_same(loss, inputs, algorithm, tolerance=1e-10):
    """The values and the gradients are those of autograd, none of them zero everywhere."""
    expected, found = loss("autograd"), loss(algorithm)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)  # step sizes round otherwise without gradient
    expected = torch.autograd.grad(expected, inputs)
    found = torch.autograd.grad(found, inputs)
    for a, b in zip(found, expected, strict=True):
        size = b.abs().max().item()
        assert size > 1e-6
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * size)


CASES = [
    (FEW, {}),
    (FEW, {"stepping": "per_sample"}),
    (FEW, {"solver": "rk4"}),
    (FEW, {"solver": "rk4", "step_size": 0.03}),
    (FEW, {"solver": "dopri8", "stepping": "per_sample"}),
    (FEW, {"solver": "rodas5p"}),
    (FEW, {"solver": "kvaerno3", "rtol": 1e-4}),
    (FEW, {"solver": "implicit_euler", "step_size": 0.05}),
    (FEW, {"solver": "adams_moulton", "rtol": 1e-3}),
    (FEW, {"solver": "auto"}),
    ("reversible", {"solver": "reversible_heun", "rtol": 1e-4}),
    ("reversible", {"solver": "reversible_heun", "rtol": 1e-4, "stepping": "per_sample"}),
    ("reversible", {"solver": "alf", "rtol": 1e-4}),
    ("reversible", {"solver": "alf", "step_size": 0.03}),
    ("reversible", {"solver": ReversibleRungeKutta("bosh3"), "stepping": "per_sample"}),
    ("reversible", {"solver": ReversibleRungeKutta("tsit5")}),
]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize(("algorithm", "options"), CASES, ids=str)
def test_has_the_gradients_of_autograd(algorithm, options, reverse):
    field, x0, scale = Forced(), torch.randn(4, 2, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    t = torch.tensor(TIMES)
    t = (t.flip(0) if reverse else t).requires_grad_()

    def loss(sensitivity):
        return weighted(odeint(field, x0, t, args=(scale,), sensitivity=sensitivity, **(TIGHT | options)).x)

    assert_same(loss, [x0, scale, t, *field.parameters()], algorithm)


@pytest.mark.parametrize("solver", ["reversible_heun", "alf", ReversibleRungeKutta("bosh3")], ids=str)
def test_a_thousand_steps_are_undone(solver):
    field, x0, scale = Forced(), torch.randn(4, 2, requires_grad=True), torch.tensor(0.7, requires_grad=True)

    def loss(sensitivity):
        options = {"solver": solver, "step_size": 5e-3, "sensitivity": sensitivity}
        sol = odeint(field, x0, [0.0, 5.0], args=(scale,), **options)
        assert sol.stats.n_accepted == 1000
        return weighted(sol.x)

    assert_same(loss, [x0, scale, *field.parameters()], "reversible")


@pytest.mark.parametrize("name", ["verlet", "yoshida4"])
def test_symplectic_steps_are_undone_too(name):
    x0, k = (torch.randn(3), torch.randn(3)), torch.tensor(1.3, requires_grad=True)
    x0 = tuple(part.requires_grad_() for part in x0)
    field = SplitField(lambda t, p, k: p, lambda t, q, k: -k * q.sin())

    def loss(sensitivity):
        q, p = odeint(field, x0, [0.0, 2.0], args=(k,), solver=name, step_size=0.02, sensitivity=sensitivity).x
        return weighted(q) + weighted(p)

    assert_same(loss, [*x0, k], "reversible")
    assert_same(loss, [*x0, k], FEW)


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_trees_complex_numbers_and_arguments_of_samples(algorithm):
    x0 = {"z": torch.randn(3, 2, dtype=torch.complex128), "s": torch.randn(3)}
    x0 = {name: leaf.requires_grad_() for name, leaf in x0.items()}
    a, b = torch.randn(3, requires_grad=True), torch.tensor(0.4, requires_grad=True)

    def f(t, x, rates, rest):
        return {"z": 1j * rest["b"] * x["z"] * rates[:, None], "s": (t * x["s"]).cos() - x["z"].abs().sum(-1)}

    def loss(sensitivity):
        options = {"solver": "alf", "rtol": 1e-4, "stepping": "per_sample", "sensitivity": sensitivity}
        x = odeint(f, x0, [0.0, 0.4, 1.0], args=(PerSample(a), {"b": b, "name": "no tensor"}), **options).x
        return weighted(x["s"]) + weighted(x["z"].real) + weighted(x["z"].imag)

    assert_same(loss, [*x0.values(), a, b], algorithm)


@pytest.mark.parametrize(
    "save", ["steps", "dense", Save(("t_span", "steps")), Save(fn=lambda t, x: t * x.square().sum())]
)
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_whatever_is_kept_has_its_gradient(save, stepping):
    field, x0, scale = Forced(), torch.randn(4, 2, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    if isinstance(save, Save) and save.fn is not None and stepping == "per_sample":
        save = Save(fn=lambda t, x: t[:, 0] * x.square().sum(-1))

    def loss(sensitivity):
        options = TIGHT | {"save": save, "stepping": stepping, "sensitivity": sensitivity}
        sol = odeint(field, x0, TIMES, args=(scale,), **options)
        total = weighted(sol.x)
        if sol.steps is not None:
            total = total + weighted(sol.steps.x)
        return total if sol.dense is None else total + weighted(sol.dense(0.47))

    assert_same(loss, [x0, scale, *field.parameters()], FEW)


class Learned(dyn_numerics.Controller):
    """Multiplies the step by a power of the error that it learns."""

    differentiable = True

    def __init__(self) -> None:
        super().__init__()
        self.first_step = 0.05
        self.power = nn.Parameter(torch.tensor(0.1))
        self.scale = nn.Parameter(torch.tensor(0.9))

    def judge(self, error, error_order, memory):
        error = torch.as_tensor(error, dtype=torch.float64)  # without gradient it is a host number
        factor = self.scale * torch.exp(-self.power * torch.log(error.clamp(1e-6, 1e6)))
        return dyn_numerics.Verdict(error < 2.0, factor, memory)


def hypersolver(base):
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    return HyperStepper(base, lambda t, x, slope: net(torch.cat([x, slope], -1))), list(net.parameters())


def trained_part(kind):
    """Options with something to train in the solver, and its parameters."""
    if kind == "table":
        solver = RungeKutta2(0.6, trainable=True)
        return {"solver": solver, "step_size": 0.05}, list(solver.parameters())
    if kind == "adaptive table":
        solver = dyn_numerics.Bosh3(trainable=True)
        return {"solver": solver}, list(solver.parameters())
    if kind == "hypersolver":
        solver, parameters = hypersolver(dyn_numerics.Bosh3())
        return {"solver": solver}, parameters
    if kind == "hypersolver, reversible":
        base, parameters = trained_part("adaptive table")
        return {"solver": ReversibleRungeKutta(base["solver"])}, parameters
    controller = Learned()
    solver = "reversible_heun" if "reversible" in kind else "bosh3"
    return {"solver": solver, "controller": controller, "rtol": 1e-2, "atol": 1e-2}, list(controller.parameters())


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        (FEW, "table"),
        (FEW, "adaptive table"),
        (FEW, "hypersolver"),
        (FEW, "controller"),
        ("reversible", "hypersolver, reversible"),
        ("reversible", "controller, reversible"),
    ],
    ids=str,
)
def test_trainable_solvers_and_controllers(algorithm, kind, stepping):
    field, x0, scale = Forced(), torch.randn(4, 2, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    t, (options, parameters) = torch.tensor(TIMES, requires_grad=True), trained_part(kind)

    def loss(sensitivity):
        given = {"rtol": 1e-4, "atol": 1e-4} | options | {"stepping": stepping, "sensitivity": sensitivity}
        return weighted(odeint(field, x0, t, args=(scale,), **given).x)

    assert_same(loss, [x0, scale, t, *field.parameters(), *parameters], algorithm)


def fall(t, x, g):
    return torch.stack([x[..., 1], -g + 0 * x[..., 1]], dim=-1)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [(FEW, {"solver": "tsit5"}), ("reversible", {"solver": ReversibleRungeKutta("bosh3")})],
    ids=str,
)
def test_through_events_and_what_follows(algorithm, options, stepping):
    """A ball that bounces, and stops at a clock's time."""
    g = torch.tensor(9.81, requires_grad=True)
    r = torch.tensor(0.8, requires_grad=True)
    h = torch.tensor([1.0, 2.0, 3.0][: 1 if stepping == "joint" else 3], requires_grad=True)
    bounce = Event(
        lambda t, x, g: x[..., 0].sum() if stepping == "joint" else x[..., 0],
        direction=-1,
        jump=lambda t, x, g: torch.stack([x[..., 0], -r * x[..., 1]], -1),
    )

    def loss(sensitivity):
        x0 = torch.stack([h, torch.zeros_like(h)], -1)
        given = {"events": bounce, "stepping": stepping, "sensitivity": sensitivity, "params": (r,), **TIGHT, **options}
        sol = odeint(fall, x0, [0.0, 0.5, 1.0, 1.5], args=(g,), **given)
        (event,) = sol.events
        assert event.count.sum() >= (2 if stepping == "joint" else 3)
        return weighted(sol.x) + weighted(event.t.nan_to_num()) + weighted(event.x_after.nan_to_num())

    assert_same(loss, [h, g, r], algorithm)


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_where_the_field_jumps(algorithm):
    a = torch.tensor(2.0, requires_grad=True)
    x0 = torch.randn(3, requires_grad=True)
    stops = StopAt([0.3, 0.7], jumps=True)

    def f(t, x, a):
        return torch.where((t > 0.3) & (t < 0.7), a, -a) * x.cos()

    def loss(sensitivity):
        options = {"solver": "reversible_heun", "rtol": 1e-3, "controller": stops, "sensitivity": sensitivity}
        return weighted(odeint(f, x0, TIMES, args=(a,), **options).x)

    assert_same(loss, [x0, a], algorithm)


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_a_failed_sample_leaves_the_gradients_of_others(algorithm):
    """Its state grows beyond all bounds before the end; that of one more has no value at its start."""
    rate = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    x0 = torch.tensor([[0.5], [1.5], [-1.0]], requires_grad=True)

    def loss(sensitivity):
        options = {"solver": "reversible_heun", "rtol": 1e-3, "stepping": "per_sample", "throw": False}
        f = lambda t, x, rate: rate[:, None] * x**2.5  # noqa: E731
        sol = odeint(f, x0, [0.0, 0.2, 1.0], args=(PerSample(rate),), sensitivity=sensitivity, **options)
        assert sol.x[1, :2].isfinite().all()
        assert sol.x[2, 1:].isnan().all()
        return weighted(sol.x[:, 0]) + weighted(sol.x[1, 1])

    expected, found = (torch.autograd.grad(loss(s), [rate, x0]) for s in ("autograd", algorithm))
    for a, b in zip(found, expected, strict=True):
        assert a[:2].isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_second_derivatives(algorithm):
    a = torch.tensor(0.7, requires_grad=True)
    x0 = torch.randn(3, requires_grad=True)

    def solve(x0, a, t):
        f = lambda t, x, a: (a * x).sin() + t  # noqa: E731
        options = {"solver": "reversible_heun", "step_size": 0.1, "sensitivity": algorithm}
        return odeint(f, x0, t, args=(a,), **options).x[1:]

    t = torch.tensor([0.0, 0.25, 0.73], requires_grad=True)
    assert torch.autograd.gradcheck(solve, (x0, a, t))
    assert torch.autograd.gradgradcheck(solve, (x0, a, t))


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_transforms_and_forward_mode(algorithm):
    def final(x0, a, sensitivity):
        f = lambda t, x, a: (a * x).sin() + t  # noqa: E731
        options = {"solver": "reversible_heun", "step_size": 0.1, "sensitivity": sensitivity}
        return odeint(f, x0, [0.0, 1.0], args=(a,), **options).x[-1]

    x0, a = torch.randn(3), torch.tensor(0.7)
    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        found = transform(partial(final, sensitivity=algorithm), argnums=1)(x0, a)
        expected = transform(partial(final, sensitivity="autograd"), argnums=1)(x0, a)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(lambda x, a: final(x, a, algorithm).sum()), in_dims=(0, None))
    torch.testing.assert_close(each(x0[:, None], a)[:, 0], torch.func.grad(lambda x: final(x, a, "autograd").sum())(x0))


def test_dropout_draws_the_same_again():
    """Pulled back with other masks the gradient would be another one."""
    weight = torch.randn(8, requires_grad=True)
    drop = nn.Dropout(0.5)
    x0 = torch.randn(8, requires_grad=True)

    def loss():
        torch.manual_seed(3)
        options = {"solver": "rk4", "step_size": 0.1, "sensitivity": FEW, "params": (weight,)}
        return weighted(odeint(lambda t, x: drop(x * weight).sin(), x0, [0.0, 0.5, 1.0], **options).x)

    found = torch.autograd.grad(loss(), [weight, x0])
    for tensor, gradient in zip([weight, x0], found, strict=True):
        direction, values = torch.randn_like(tensor), []
        start = tensor.detach().clone()
        for h in (1e-5, -1e-5):
            tensor.data = start + h * direction
            values.append(loss().item())
        tensor.data = start
        expected = (values[0] - values[1]) / 2e-5
        assert abs(expected) > 1e-3
        assert abs((gradient * direction).sum().item() - expected) < 1e-7
    with pytest.raises(ValueError, match=r"f: draws random numbers.*'reversible'.*use sensitivity='checkpoint'"):
        odeint(lambda t, x: drop(x), x0, [0.0, 1.0], solver="alf", step_size=0.5, sensitivity="reversible")


def saved_bytes(run):
    """What is saved for the backward pass, by its distinct storages, in bytes."""
    alive = WeakSet()

    class Packed:
        def __init__(self, tensor):
            self.storage = tensor.untyped_storage()
            alive.add(self)

    with saved_tensors_hooks(Packed, lambda packed: None):
        keep = run()
    sizes = {packed.storage.data_ptr(): packed.storage.nbytes() for packed in alive}
    del keep
    return sum(sizes.values())


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_what_is_saved_does_not_grow_with_the_steps(stepping):
    """`reversible` saves the same; `checkpoint` at most its budget of states with what the method carries."""
    x0, a = torch.randn(16, 64, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    f = lambda t, x, a: (a * x).sin()  # noqa: E731

    def of(sensitivity, solver, steps):
        options = {"solver": solver, "step_size": 1.0 / steps, "stepping": stepping, "sensitivity": sensitivity}
        return saved_bytes(lambda: odeint(f, x0, [0.0, 1.0], args=(a,), **options).x)

    size = x0.numel() * 8
    assert of("autograd", "dopri5", 50) > 100 * size
    few, many = of("reversible", "reversible_heun", 50), of("reversible", "reversible_heun", 500)
    assert few == many < 8 * size
    for budget in (4, 16):
        saved = of(RecursiveCheckpoint(budget), "dopri5", 500)
        assert (budget - 1) * size < saved <= 2 * budget * size


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("states", [1, 2, 3, 5])
def test_the_schedule_takes_the_fewest_steps_again(n, states):
    """Against dynamic programming: the steps that `n` take with so many states, the one at the start among them."""

    def fewest(n, s, known={}):  # noqa: B006
        if n <= 1:
            return 0
        if s == 1:
            return n * (n - 1) // 2
        if (n, s) not in known:
            known[n, s] = min(m + fewest(m, s) + fewest(n - m, s - 1) for m in range(1, n))
        return known[n, s]

    def taken(n, s):
        if n <= 1:
            return 0
        if s == 1:
            return n * (n - 1) // 2
        m = steps_to_checkpoint(n, s)
        assert 1 <= m < n
        return m + taken(m, s) + taken(n - m, s - 1)

    assert taken(n, states) == fewest(n, states)


def test_evaluations_are_counted():
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return x.cos()

    for solver, stepping in (("tsit5", "joint"), ("dopri8", "per_sample"), ("rk4", "joint")):
        calls = 0
        x0 = torch.randn(3, 1, requires_grad=True)
        sol = odeint(f, x0, TIMES, solver=solver, stepping=stepping, sensitivity=FEW)
        assert sol.stats.n_evals == calls > 0


def test_captures_of_events_and_of_a_jump_are_named():
    x0, level, rate, dose = (
        torch.ones(3, requires_grad=True),
        *(torch.tensor(v, requires_grad=True) for v in (0.7, 2.0, 0.1)),
    )
    noted = Event(lambda t, x: t - 0.1, terminal=False)
    crossed = Event(lambda t, x: x[0] - level, jump=lambda t, x: rate * x)
    given = StopAt([0.5], jump=lambda t, x: x + dose)

    def refused(f=lambda t, x: -x, **options):
        with pytest.raises(ValueError, match="expected what wants gradients") as caught:
            odeint(f, x0, [0.0, 1.0], sensitivity=FEW, **options).x.sum().backward()
        return str(caught.value).partition(", expected")[0]

    assert refused(controller=given) == "controller.jump: captures dose"
    assert refused(lambda t, x: rate * x, controller=given) == "f: captures rate"
    two = {"events[1].condition: captures level", "events[1].jump: captures rate"}
    assert set(refused(events=[noted, crossed]).split("; ")) == two
    far = SimpleNamespace(near=SimpleNamespace(amount=dose))
    given = StopAt([0.5], jump=lambda t, x: x + far.near.amount)
    assert refused(controller=given) == "f or controller.jump: captures a tensor of shape []"
    odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity=FEW, controller=given, params=(dose,)).x.sum().backward()


def test_refusals():
    x0, a = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)

    def field(t, x):
        return a * x

    with pytest.raises(ValueError, match="f: captures a, expected what wants gradients to be an argument"):
        odeint(field, x0, [0.0, 1.0], sensitivity=FEW)
    # Even where it is needed only later.
    x = odeint(lambda t, x: a * x if t > 0.5 else x, x0, [0.0, 1.0], sensitivity=FEW).x
    with pytest.raises(ValueError, match="f: captures a"):
        x.sum().backward()
    with pytest.raises(
        ValueError, match=r"solver: got Tsit5 with sensitivity='reversible'.*'reversible_heun', 'alf' or Rev"
    ):
        odeint(lambda t, x: x, x0, [0.0, 1.0], sensitivity=Reversible())
    with pytest.raises(ValueError, match="save: got internals=True with sensitivity='checkpoint'"):
        odeint(lambda t, x: x, x0, [0.0, 1.0], sensitivity=FEW, save=Save(internals=True))
    with pytest.raises(ValueError, match="compact: got True with sensitivity='checkpoint'"):
        odeint(lambda t, x: x, x0[:, None], [0.0, 1.0], sensitivity=FEW, stepping="per_sample", compact=True)
    for budget in (0, 2.5, True):
        with pytest.raises(ValueError, match=r"budget: got .*, expected a positive number of states"):
            RecursiveCheckpoint(budget)


def test_a_field_that_changed_in_between_is_refused():
    drop, x0 = nn.Dropout(0.5).eval(), torch.randn(30, requires_grad=True)
    factor = [1.0]
    x = odeint(lambda t, x: factor[0] * drop(x), x0, [0.0, 1.0], sensitivity=FEW).x
    factor[0] = 2.0
    with pytest.raises(ValueError, match="f: has another value than in the forward solve"):
        x.sum().backward()


def test_unused_and_frozen_parameters():
    used, unused, frozen = (torch.randn(3, requires_grad=True) for _ in range(3))
    frozen.requires_grad_(False)
    x0 = torch.randn(3, requires_grad=True)
    options = {"args": (used, unused, frozen, None, "text"), "sensitivity": FEW}
    x = odeint(lambda t, x, a, b, c, *rest: a * c * x, x0, [0.0, 1.0], **options).x
    gradients = torch.autograd.grad(x.sum(), [used, unused])
    assert gradients[0].abs().min() > 0
    assert torch.equal(gradients[1], torch.zeros(3))


def test_a_span_of_no_length_and_the_solve_that_is_resumed():
    x0 = torch.randn(3, requires_grad=True)
    sol = odeint(lambda t, x: x.cos(), x0, [1.0, 1.0], sensitivity=FEW)
    torch.testing.assert_close(torch.autograd.grad(sol.x.sum(), x0)[0], torch.full((3,), 2.0))

    def loss(sensitivity):
        sol = odeint(lambda t, x: x.cos(), x0, [0.0, 0.5], sensitivity=sensitivity)
        return weighted(sol.resume([0.5, 1.0]).x)

    assert_same(loss, [x0], FEW)


def test_a_drift_of_undone_steps_is_measured():
    """Steps that contract strongly are undone badly, the worse the more of them there are."""
    x0 = torch.ones(3, requires_grad=True)

    def run(span, step, coupling=0.9):
        options = {"solver": ReversibleRungeKutta("bosh3", coupling), "step_size": step, "sensitivity": "reversible"}
        return torch.autograd.grad(odeint(lambda t, x: -5 * x, x0, [0.0, span], **options).x[-1].sum(), x0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(1.0, 0.1)
    with pytest.warns(
        UserWarning, match=r"undoing 180 steps led \d\.\de[-+]\d+ of the state's size away .*'checkpoint'"
    ):
        run(18.0, 0.1)
    with pytest.raises(RuntimeError, match=r"undoing 1200 steps led to states that are not finite.*'checkpoint'"):
        run(1.2, 0.001, 0.5)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
def test_events_with_a_learned_controller(algorithm, terminal, stepping):
    """Values, status and gradients, by differences: step sizes and events meet in one solve."""
    controller, g = Learned(), torch.tensor(9.81)
    h = torch.tensor([1.0, 1.5] if stepping == "per_sample" else [1.0], requires_grad=True)
    below = 0.2 if terminal else 0.0
    event = Event(
        lambda t, x, g: (x[..., 0] if stepping == "per_sample" else x[..., 0].sum()) - below,
        terminal=terminal,
        direction=-1,
        jump=None if terminal else lambda t, x, g: torch.stack([x[..., 0], -0.9 * x[..., 1]], -1),
    )

    def loss(sensitivity):
        solver = "reversible_heun" if sensitivity == "reversible" else "bosh3"
        options = {"solver": solver, "controller": controller, "events": event, "stepping": stepping, "throw": False}
        x0 = torch.stack([h, 0 * h], -1)
        sol = odeint(fall, x0, [0.0, 0.7], args=(g,), rtol=1e-3, atol=1e-3, sensitivity=sensitivity, **options)
        assert (torch.as_tensor(sol.status_code) == (6 if terminal else 0)).all()
        assert (sol.events[0].count == 1).all()
        return weighted(sol.x.nan_to_num()) + weighted(sol.events[0].t)

    parameters = [h, *controller.parameters()]
    found = torch.autograd.grad(loss(algorithm), parameters)
    for tensor, gradient in zip(parameters, found, strict=True):
        start, values = tensor.detach().clone(), []
        direction = torch.ones_like(start)
        for step in (1e-6, -1e-6):
            tensor.data = start + step * direction
            values.append(loss(algorithm).item())
        tensor.data = start
        assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


class Hesitant(Learned):
    """Has about as many attempts rejected as accepted."""

    def judge(self, error, error_order, memory):
        _, factor, _ = super().judge(error, error_order, memory)
        accept = error < 1.0
        return dyn_numerics.Verdict(accept, torch.where(accept, 1.5 * factor, factor.clamp(max=0.7)), memory)


@pytest.mark.parametrize("save", ["t_span", "steps", "dense", Save(("dense", "steps"), fn=lambda t, x: t * x[..., :1])])
@pytest.mark.parametrize(("algorithm", "solver"), [(FEW, "bosh3"), (FEW, "alf"), ("reversible", "reversible_heun")])
def test_what_is_kept_of_attempts(algorithm, solver, save):
    """Of samples that are rejected and bounce each in attempts of its own; a step holds several outputs, or none."""
    controller, k = Hesitant(), torch.tensor(4.0, requires_grad=True)
    x0 = torch.tensor([[1.0, 0.0], [0.7, 0.2], [1.4, -0.3]], requires_grad=True)
    t = torch.tensor([0.0, 0.03, 0.06, 0.09, 0.4, 0.7, 1.3, 1.99, 2.0], requires_grad=True)
    bounce = Event(lambda t, x, k: x[..., 0] + 0.2, jump=lambda t, x, k: x * torch.tensor([1.0, 0.8]))

    def loss(sensitivity):
        sol = odeint(
            lambda t, x, k: torch.stack([x[..., 1], -k * x[..., 0] - 0.1 * x[..., 1] ** 3], -1), x0, t, args=(k,),
            solver=solver, controller=controller, events=bounce, stepping="per_sample", rtol=1e-2, atol=1e-2,
            save=save, sensitivity=sensitivity,
        )  # fmt: skip
        assert (sol.stats.n_rejected > 1).all()
        total = weighted(sol.x) + weighted(sol.events[0].t.nan_to_num())
        if sol.steps is not None:
            total = total + weighted(sol.steps.x) + weighted(sol.steps.t)
        return total if sol.dense is None else total + weighted(sol.dense([[0.13], [0.9], [1.95]]))

    assert_same(loss, [x0, k, t, *controller.parameters()], algorithm)


@pytest.mark.parametrize("algorithm", [FEW, "reversible"], ids=str)
@pytest.mark.parametrize("what", ["arg", "buffer"])
def test_constants_that_are_written_to_are_noticed(algorithm, what):
    """They count in the middle of the span, where neither the first nor the last step sees them."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("c", torch.ones(2))

        def forward(self, t, x, c):
            return -x * torch.where((t > 0.3) & (t < 0.7), c if what == "arg" else self.c, torch.ones(2))

    field, c, x0 = Field(), torch.ones(2), torch.ones(2, requires_grad=True)
    options = {"solver": "alf", "step_size": 0.05, "sensitivity": algorithm}
    x = odeint(field, x0, [0.0, 1.0], args=(c,), **options).x
    (c if what == "arg" else field.c).mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x[-1].sum().backward()


def test_what_is_conserved_does_not_hide_a_change():
    """Shares of a population, whose sum stays one."""
    x0 = torch.tensor([0.9, 0.1, 0.0], requires_grad=True)
    rate = [2.0]

    def f(t, x):
        infected = rate[0] * x[0] * x[1]
        return torch.stack([-infected, infected - x[1], x[1]])

    x = odeint(f, x0, [0.0, 1.0], sensitivity=FEW).x
    rate[0] = 1.0
    with pytest.raises(ValueError, match="f: has another value than in the forward solve"):
        x[-1, 0].backward()


@pytest.mark.parametrize("solver", ["reversible_heun", "alf", ReversibleRungeKutta("tsit5")], ids=str)
def test_states_that_begin_or_end_at_zero(solver):
    a = torch.tensor(1.0, requires_grad=True)
    options = {"solver": solver, "sensitivity": "reversible", "rtol": 1e-6, "atol": 1e-6}
    x = odeint(lambda t, x, a: a * t.cos() + 0 * x, torch.zeros(1), [0.0, torch.pi], args=(a,), **options).x
    (gradient,) = torch.autograd.grad(x[-1].sum(), a)
    assert abs(gradient.item()) < 1e-5
    x = odeint(lambda t, x, a: (a - 1) + 0 * x, torch.zeros(1), [0.0, 1.0], args=(a,), **options).x
    assert torch.autograd.grad(x[-1].sum(), a)[0].item() == pytest.approx(1)


@pytest.mark.parametrize("solver", ["reversible_heun", ReversibleRungeKutta("tsit5")], ids=str)
def test_a_state_that_is_zero_for_a_while_is_found_again(solver):
    """Rounding leaves something of it, which is nothing beside the states that follow."""
    a = torch.tensor(1.3, requires_grad=True)

    def f(t, x, a):
        return torch.where(t > 0.5, a * torch.cos(7 * t) + 0.1 * x, 0 * x)

    def loss(sensitivity):
        options = {"solver": solver, "step_size": 0.05, "sensitivity": sensitivity}
        return weighted(odeint(f, torch.zeros(3), [0.0, 1.0], args=(a,), **options).x)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(loss, [a], "reversible")
