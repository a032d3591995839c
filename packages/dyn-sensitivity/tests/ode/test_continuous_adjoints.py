"""What the continuous adjoints promise: gradients that converge with the tolerance, and what they cost."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from dyn_numerics import PerSample, StopAt
from dyn_sensitivity import Backsolve, GaussQuadrature, Interpolating, odeint

VARIANTS = {
    "backsolve": Backsolve(),
    "backsolve, quadrature": Backsolve(quadrature=True),
    "backsolve, checkpoints": Backsolve(checkpoints=3),
    "interpolating": Interpolating(),
    "gauss": GaussQuadrature(),
}
EVERY = pytest.mark.parametrize("sensitivity", VARIANTS.values(), ids=VARIANTS)
FORWARD, REVERSED = [0.0, 0.7, 1.1, 2.0], [2.0, 1.1, 0.7, 0.0]


class Counted(nn.Module):
    """Counts the calls of a field."""

    def __init__(self, f):
        super().__init__()
        self.f, self.calls = f, 0

    def forward(self, t, x, *args):
        self.calls += 1
        return self.f(t, x, *args)

    def taken(self):
        calls, self.calls = self.calls, 0
        return calls


def growth(t, x, p):
    """Of each element by itself, so that there is a closed form."""
    return p * torch.cos(t) * x


def pendulum(t, x):
    return torch.stack([x[1], -torch.sin(x[0])])


def exact(t, x0, p):
    return x0 * torch.exp(p * (torch.sin(t) - torch.sin(t[0]))[:, None])


@EVERY
@pytest.mark.parametrize("times", [FORWARD, REVERSED], ids=["forward", "reversed"])
@pytest.mark.parametrize("solver", ["dopri5", "bosh3"])
def test_the_error_falls_with_the_tolerance(sensitivity, times, solver):
    """By its slope, of the gradients to state, parameters and times, of a loss on all outputs."""
    tolerances = (1e-3, 1e-5, 1e-7) if solver == "bosh3" else (1e-4, 1e-6, 1e-8, 1e-10)
    inputs = x0, p, t = (
        torch.tensor([1.0, -0.5], requires_grad=True),
        torch.tensor([0.8, -1.3], requires_grad=True),
        torch.tensor(times, requires_grad=True),
    )
    expected = torch.autograd.grad(exact(t, x0, p).square().sum(), inputs)
    errors = []
    for tolerance in tolerances:
        sol = odeint(growth, x0, t, args=(p,), sensitivity=sensitivity, solver=solver, rtol=tolerance, atol=tolerance)
        found = torch.autograd.grad(sol.x.square().sum(), inputs)
        errors.append(max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)))
    slope = math.log(errors[0] / errors[-1]) / math.log(tolerances[0] / tolerances[-1])
    assert 0.75 < slope < 1.3
    assert errors[-1] < 100 * tolerances[-1]


@EVERY
@pytest.mark.parametrize("options", [{"solver": "rk4", "step_size": 0.05}, {"solver": "dopri5", "step_size": 0.1}])
def test_steps_of_a_given_size(sensitivity, options):
    inputs = x0, p = torch.tensor([1.0, -0.5], requires_grad=True), torch.tensor([0.8, -1.3], requires_grad=True)
    t = torch.tensor(FORWARD)
    expected = torch.autograd.grad(exact(t, x0, p).square().sum(), inputs)
    sol = odeint(growth, x0, t, args=(p,), sensitivity=sensitivity, **options)
    found = torch.autograd.grad(sol.x.square().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# --- what is solved back ---


def relaxing(t, x, rate):
    """Towards 1, which multiplies what differs from it by exp(40) on the way back."""
    return rate * (1 - x) + torch.sin(t)


def of_relaxing(sensitivity):
    x0, rate = torch.zeros(1, requires_grad=True), torch.tensor(20.0, requires_grad=True)
    t = torch.linspace(0, 2, 3)
    sol = odeint(relaxing, x0, t, args=(rate,), sensitivity=sensitivity, rtol=1e-7, atol=1e-7, solver="dopri5")
    return torch.autograd.grad(sol.x[1:].sum(), (x0, rate))[1]


def test_a_state_that_drifts_is_warned_of_with_its_drift():
    with pytest.warns(UserWarning, match=r"sensitivity='adjoint': the state .* 1e([4-9]|1\d) tolerances .* Try 'inter"):
        of_relaxing("adjoint")


@pytest.mark.parametrize(
    "sensitivity",
    [Backsolve(checkpoints=15), Interpolating(), GaussQuadrature()],
    ids=["checkpoints", "inter", "gauss"],
)
def test_a_state_that_stays_where_it_was_is_not(sensitivity):
    expected = of_relaxing("autograd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of_relaxing(sensitivity)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_state_that_cannot_be_solved_back_says_so():
    """With another tolerance the past of what came to rest at 1 is another, and ends."""
    x0 = torch.tensor([5.0], requires_grad=True)

    def f(t, x):
        return -((x - 1) ** 3) * 50

    sol = odeint(f, x0, [0.0, 50.0], sensitivity=Backsolve(rtol=1e-2, atol=1e-2), rtol=1e-3, atol=1e-3)
    with pytest.raises(Exception, match="the backward solve did not reach the first time; try 'interpolated_adjoint'"):
        sol.x[-1].sum().backward()


@pytest.mark.parametrize("checkpoints", [1, 3, 7])
@pytest.mark.parametrize("times", [FORWARD, [0.0, 1.0, 2.0], REVERSED])
def test_checkpoints_change_no_value(checkpoints, times):
    x0, p = torch.tensor([1.0, -0.5], requires_grad=True), torch.tensor([0.8, -1.3])
    plain = odeint(growth, x0, times, args=(p,), sensitivity="adjoint")
    sol = odeint(growth, x0, times, args=(p,), sensitivity=Backsolve(checkpoints=checkpoints))
    assert torch.equal(sol.x, plain.x)
    assert torch.equal(sol.t, plain.t)
    assert sol.stats.n_evals == plain.stats.n_evals


def test_bad_settings():
    with pytest.raises(TypeError, match="checkpoints: got a float"):
        Backsolve(checkpoints=1.5)
    with pytest.raises(ValueError, match="checkpoints: got -1"):
        Backsolve(checkpoints=-1)
    with pytest.raises(TypeError, match="quadrature: got a int"):
        Backsolve(quadrature=1)
    with pytest.raises(ValueError, match="with checkpoints and steps on t_span"):
        odeint(
            growth,
            torch.ones(1, requires_grad=True),
            FORWARD,
            args=(1.0,),
            sensitivity=Backsolve(checkpoints=1),
            solver="rk4",
        )


# --- what it costs ---


@pytest.mark.parametrize(
    ("sensitivity", "per_step"),
    [(Backsolve(), 6), (Backsolve(quadrature=True), 9), (Interpolating(), 6), (GaussQuadrature(), 9)],
)
def test_one_solve_of_many_outputs(sensitivity, per_step):
    """Each output costs one evaluation where the solve goes on, and no new choice of a step size."""
    f = Counted(lambda t, x: torch.cos(t) * x)
    x0 = torch.ones(2, requires_grad=True)
    t = torch.linspace(0, 1, 21)  # closer than steps: each interval is one
    sol = odeint(f, x0, t, sensitivity=sensitivity, solver="dopri5", rtol=1e-3, atol=1e-3)
    f.taken()
    sol.x.sum().backward()
    assert (
        f.taken() <= 1 + 2 + 20 * per_step + 19 + 2 * per_step
    )  # whether f is the same, the first step, and short ones


def test_the_first_step_is_as_long_as_those_forward():
    """Where the same method takes both; otherwise it is estimated."""
    f = Counted(pendulum)
    counts = []
    for sensitivity in (Backsolve(), Backsolve(rtol=1e-6)):
        x0 = torch.tensor([1.0, 0.0], requires_grad=True)
        sol = odeint(f, x0, [0.0, 3.0], sensitivity=sensitivity, solver="dopri5", rtol=1e-6, atol=1e-6)
        f.taken()
        sol.x[-1].sum().backward()
        counts.append(f.taken())
    assert counts[0] % 6 == 1 + 1  # whether f is the same, the first slope, and steps
    assert counts[1] % 6 == 1 + 2
    assert counts[0] < counts[1]


def test_rejected_steps_cost_no_parameter_gradient():
    """The field counts how often it is differentiated by its parameter."""
    seen = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, p):
            return p.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(1)
            return grad

    p = torch.tensor(1.0, requires_grad=True)
    f = Counted(lambda t, x, p: Watched.apply(p) * torch.tanh(20 * (t - 0.5)) * x)  # rejects where it turns
    counts = {}
    for name, sensitivity in (("solved", Backsolve()), ("integrated", Backsolve(quadrature=True))):
        sol = odeint(f, torch.ones(1), [0.0, 1.0], args=(p,), sensitivity=sensitivity, solver="dopri5", rtol=1e-6)
        f.taken()
        seen.clear()
        sol.x[-1].sum().backward()
        counts[name] = len(seen), f.taken()
    solved, evaluations = counts["solved"]
    integrated, more = counts["integrated"]
    assert solved == evaluations - 1  # but for whether f is the same
    assert integrated % 3 == 0
    assert more > evaluations
    assert integrated / 3 < (solved - 2) / 6  # some steps were rejected


def test_what_is_saved():
    """Nothing for steps by Backsolve; five states for each by the others; never what f saves."""

    def saved(sensitivity, end):
        sizes = []
        net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        x0 = torch.ones(3, 2, requires_grad=True)

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            sol = odeint(
                lambda t, x: net(x) + torch.sin(5 * t), x0, [0.0, end], sensitivity=sensitivity, solver="dopri5"
            )
        return sum(sizes), sol.stats.n_accepted.item()

    for sensitivity, states in ((Backsolve(), 0), (Interpolating(), 5), (GaussQuadrature(), 5)):
        (short, few), (long, many) = saved(sensitivity, 1.0), saved(sensitivity, 20.0)
        assert many > 5 * few
        assert long - short == (many - few) * (states * 6 + bool(states))


# --- what is refused ---


@EVERY
def test_second_derivatives_are_refused_by_name(sensitivity):
    x0 = torch.ones(2, requires_grad=True)
    x = odeint(growth, x0, FORWARD, args=(torch.ones(2),), sensitivity=sensitivity).x
    (grad,) = torch.autograd.grad(x[-1].square().sum(), x0, create_graph=True)
    with pytest.raises(RuntimeError, match=f"sensitivity='{sensitivity.name}': its gradient was differentiated again"):
        grad.sum().backward()


@pytest.mark.parametrize("sensitivity", ["interpolated_adjoint", "gauss", Backsolve(checkpoints=1)])
def test_compiled(sensitivity):
    solve = torch.compile(
        lambda x0: odeint(growth, x0, FORWARD, args=(1.0,), sensitivity=sensitivity).x, fullgraph=True, backend="eager"
    )
    with pytest.raises(Exception, match=r"inside torch\.compile"):
        solve(torch.ones(2, requires_grad=True))


@pytest.mark.parametrize(
    "sensitivity",
    [
        Interpolating(norm=lambda parts: parts[0][0].abs().max()),
        GaussQuadrature(norm=lambda parts: parts[0][0].abs().max()),
    ],
)
def test_own_norm(sensitivity):
    x0, p = torch.ones(2, requires_grad=True), torch.tensor([0.8, -1.3], requires_grad=True)
    sol = odeint(growth, x0, FORWARD, args=(p,), sensitivity=sensitivity, rtol=1e-8, atol=1e-8)
    expected = exact(torch.tensor(FORWARD), x0, p)
    for a, b in zip(*(torch.autograd.grad(x[-1].sum(), (x0, p)) for x in (sol.x, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["adjoint", "interpolated_adjoint", "gauss"])
@pytest.mark.parametrize("span", [[0.0, 0.5], [0.5, 1.0], [1.0, 0.5], [0.5, 0.0]])
def test_times_at_a_jump_of_the_field_move_on_their_side(name, span):
    """The field is 1 before 0.5 and 3 after it; a span that ends or begins there has one side of it."""
    slope = 1.0 if 0.0 in span else 3.0
    t = torch.tensor(span, requires_grad=True)
    stops = StopAt([0.5], jumps=True)

    def f(t, x):
        return torch.where(t < 0.5, 1.0, 3.0) + 0 * x

    x = odeint(f, torch.zeros(1, requires_grad=True), t, controller=stops, sensitivity=name).x
    (gradient,) = torch.autograd.grad(x[-1].sum(), t)
    torch.testing.assert_close(gradient, torch.tensor([-slope, slope]), rtol=0, atol=1e-6)


def test_fixed_steps_warn_of_drift_too():
    x0 = torch.ones(1, requires_grad=True)

    def solve(rate):
        options = {"solver": "rk4", "step_size": 0.05, "sensitivity": "adjoint"}
        return odeint(lambda t, x: rate * (torch.cos(t) - x), x0, [0.0, 10.0], **options).x[-1].sum()

    with pytest.warns(
        UserWarning, match=r"'adjoint': the state that was solved back is about 1e\d+ times its size away"
    ):
        solve(5.0).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(0.2).backward()


@pytest.mark.parametrize("name", ["adjoint", "interpolated_adjoint", "gauss"])
def test_a_batch_of_no_samples(name):
    x0 = torch.ones(0, 2, requires_grad=True)
    x = odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity=name, stepping="per_sample").x
    assert torch.autograd.grad(x.sum(), x0)[0].shape == (0, 2)


def test_a_failed_sample_with_arguments_of_its_own():
    """Its neighbour's gradient is the closed form's, and it is not taken for a field that changed."""
    s, x0 = torch.ones(2, requires_grad=True), torch.tensor([[1.0], [3.0]], requires_grad=True)
    options = {
        "args": (PerSample(s),),
        "stepping": "per_sample",
        "throw": False,
        "rtol": 1e-8,
        "atol": 1e-8,
    }
    x = odeint(lambda t, x, s: s[:, None] * x**2, x0, [0.0, 0.5], sensitivity="adjoint", **options).x
    assert x[-1, 1].isnan().all()
    ds, dx0 = torch.autograd.grad(x[-1, 0].sum(), [s, x0])
    # x = x0 / (1 - s x0 t), which is 2
    torch.testing.assert_close(ds, torch.tensor([2.0, 0.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(dx0, torch.tensor([[4.0], [0.0]]), rtol=0, atol=1e-5)
