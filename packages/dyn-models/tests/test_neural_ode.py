from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import dyn_sensitivity
from dyn_models import NeuralODE
from dyn_numerics import Heun, MaxStepsError, PIDController, RungeKutta2, Solution, SplitField, odeint
from dyn_sensitivity import Autograd, Backsolve

SENSITIVITIES = ["autograd", "adjoint"]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Rotation(nn.Module):
    """x' = A x with the solution of a rotation by the angle t."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))

    def forward(self, t, x):
        return x @ self.a


def rotated(x, t):
    c, s = math.cos(t), math.sin(t)
    return x @ torch.tensor([[c, s], [-s, c]])


def mlp(width=8):
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))


# --- calls ---


def test_call_pattern_of_the_paper():
    system, x0, t_span = NeuralODE(Rotation(), **TIGHT), torch.randn(5, 2), torch.linspace(0, 2, 7)
    t_eval, sol = system(x0, t_span)
    assert torch.equal(t_eval, t_span)
    assert sol.shape == (7, 5, 2)
    for t, x in zip(t_span.tolist(), sol, strict=True):
        torch.testing.assert_close(x, rotated(x0, t), rtol=0, atol=1e-7)


def test_returns_the_solution():
    solution = NeuralODE(Rotation())(torch.randn(5, 2))
    assert isinstance(solution, Solution)
    assert solution.status.is_success
    assert solution.stats.n_evals > 0


def test_default_times():
    x0 = torch.randn(3, 2)
    t, x = NeuralODE(Rotation(), **TIGHT)(x0)
    assert t.tolist() == [0.0, 1.0]
    torch.testing.assert_close(x[-1], rotated(x0, 1.0), rtol=0, atol=1e-7)
    t, x = NeuralODE(Rotation(), t_span=[2.0, 0.5, -1.0], **TIGHT)(x0)
    assert t.tolist() == [2.0, 0.5, -1.0]
    torch.testing.assert_close(x[-1], rotated(x0, -3.0), rtol=0, atol=1e-7)
    t, _ = NeuralODE(Rotation(), t_span=[2.0, 0.5])(x0, [0.0, 0.25])
    assert t.tolist() == [0.0, 0.25]


def test_trajectory_is_the_states_alone():
    system, x0, t_span = NeuralODE(Rotation()), torch.randn(5, 2), [0.0, 0.5, 2.0]
    assert torch.equal(system.trajectory(x0, t_span), system(x0, t_span).x)
    assert torch.equal(system.trajectory(x0), system(x0).x)


def test_parts_compose_through_the_trajectory():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow, self.readout = NeuralODE(mlp(), sensitivity="adjoint"), nn.Linear(2, 3)

        def forward(self, x):
            return self.readout(self.flow.trajectory(x)[-1])

    model = nn.Sequential(nn.Linear(4, 2), Classifier(), nn.LogSoftmax(-1))
    model(torch.randn(6, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model[:2].parameters())
    assert "1.flow.vector_field.0.weight" in model.state_dict()


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_field_of_the_state_and_of_the_time_too(sensitivity):
    net, x0 = nn.Linear(2, 2), torch.randn(3, 2)
    of_x = NeuralODE(net, sensitivity=sensitivity)
    of_both = NeuralODE(lambda t, x: net(x), sensitivity=sensitivity)
    growing = NeuralODE(lambda t, x: t * net(x), sensitivity=sensitivity)
    assert torch.equal(of_x.trajectory(x0), of_both.trajectory(x0))
    assert (of_x.trajectory(x0)[-1] - growing.trajectory(x0)[-1]).abs().max() > 0.05
    gradients = [torch.autograd.grad(m.trajectory(x0)[-1].sum(), net.weight)[0] for m in (of_x, of_both)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_args():
    x0, rate = torch.randn(3, 2), torch.tensor(0.7, requires_grad=True)
    model = NeuralODE(lambda t, x, rate, sign: sign["value"] * rate * x, **TIGHT)
    x = model.trajectory(x0, [0.0, 1.0], args=(rate, {"value": -1}))[-1]
    torch.testing.assert_close(x, x0 * math.exp(-0.7), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(x.sum(), rate)
    torch.testing.assert_close(gradient, -x0.sum() * math.exp(-0.7), rtol=1e-6, atol=1e-7)
    grown = model(x0, args=(rate, {"value": 1})).x[-1]
    torch.testing.assert_close(grown, x0 * math.exp(0.7), rtol=0, atol=1e-7)


def test_pytree_state():
    x0 = (torch.randn(3, 2), {"v": torch.randn(3)})
    model = NeuralODE(lambda t, x: (x[0], {"v": -x[1]["v"]}), **TIGHT)
    x, rest = model.trajectory(x0)
    torch.testing.assert_close(x[-1], x0[0] * math.e, rtol=0, atol=1e-7)
    torch.testing.assert_close(rest["v"][-1], x0[1]["v"] / math.e, rtol=0, atol=1e-7)


def test_settings_reach_the_solver():
    x0, t_span = torch.ones(1, 2), [0.0, 1.0]
    assert NeuralODE(Rotation(), solver="rk4", step_size=0.25)(x0, t_span).stats.n_evals == 16
    assert NeuralODE(Rotation(), solver=Heun())(x0, torch.linspace(0, 1, 6)).stats.n_evals == 10
    loose, tight = NeuralODE(Rotation())(x0, t_span), NeuralODE(Rotation(), **TIGHT)(x0, t_span)
    assert loose.stats.n_evals < tight.stats.n_evals
    assert NeuralODE(Rotation(), rtol=torch.tensor([1e-9, 1e-3]))(x0).stats.n_evals > loose.stats.n_evals
    first = NeuralODE(Rotation(), controller=PIDController(first_step=1e-5))(x0, t_span)
    assert first.stats.n_steps > loose.stats.n_steps
    with pytest.raises(MaxStepsError):
        NeuralODE(Rotation(), max_steps=3, **TIGHT)(x0, t_span)


# --- training ---


@pytest.mark.parametrize("time_dependent", [False, True])
@pytest.mark.parametrize("reversed_time", [False, True])
def test_both_sensitivities_give_the_same_gradients(time_dependent, reversed_time):
    net, x0 = mlp(), torch.randn(6, 2, requires_grad=True)
    field = (lambda t, x: net(x) * torch.cos(t)) if time_dependent else net
    t_span = torch.tensor([1.0, 0.4, 0.0] if reversed_time else [0.0, 0.4, 1.0], requires_grad=True)
    found = {}
    for sensitivity in ("autograd", "adjoint", Autograd(), Backsolve(rtol=1e-10, atol=1e-10)):
        model = NeuralODE(field, sensitivity=sensitivity, **TIGHT)
        loss = model.trajectory(x0, t_span).square().mean()
        found[sensitivity] = torch.autograd.grad(loss, [x0, t_span, *net.parameters()])
    for other in list(found.values())[1:]:
        for one, two in zip(found["autograd"], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert all(g.abs().max() > 1e-3 for g in found["autograd"])


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_learns_a_rotation(sensitivity):
    x0, t_span = torch.randn(32, 2), torch.linspace(0, 1.5, 4)
    target = torch.stack([rotated(x0, t) for t in t_span.tolist()])
    model = NeuralODE(nn.Linear(2, 2), sensitivity=sensitivity)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def loss():
        return (model.trajectory(x0, t_span) - target).square().mean()

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    assert loss().item() > 0.3
    optimizer.step(closure)
    assert loss().item() < 1e-5
    torch.testing.assert_close(model.vector_field.weight.detach().T, Rotation().a.detach(), rtol=0, atol=1e-2)


def test_trains_its_solver(slope_along):
    """The paper's figure 3 in small: a frozen field, shared, and a solver that learns to be another."""
    field = mlp(32).requires_grad_(False)
    model = NeuralODE(field, solver=RungeKutta2(0.5, trainable=True))
    teacher = NeuralODE(field, solver=Heun())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["solver.alpha"]
    assert any(p is model.solver.alpha for p in model.parameters())
    x0, t_span = 2 * torch.randn(20, 2), torch.linspace(0, 20, 40)
    target = teacher.trajectory(x0, t_span)

    def loss():
        return (model.trajectory(x0, t_span) - target).square().mean()

    loss().backward()
    alpha = model.solver.alpha
    assert alpha.grad.item() == pytest.approx(slope_along(loss, [alpha], [torch.tensor(1.0)]), rel=1e-5)
    optimizer, before = torch.optim.AdamW(model.solver.parameters(), 0.05), loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert abs(alpha.item() - 1) < 0.05
    assert loss().item() < before / 50
    assert all(p.grad is None for p in field.parameters())


def test_a_shared_field_collects_the_gradients_of_both():
    field, x0 = mlp(), torch.randn(3, 2)
    one, two = NeuralODE(field), NeuralODE(field, sensitivity="adjoint", t_span=(1.0, 0.0))
    alone = [torch.autograd.grad(m.trajectory(x0)[-1].sum(), field[0].weight)[0] for m in (one, two)]
    (one.trajectory(x0)[-1].sum() + two.trajectory(x0)[-1].sum()).backward()
    torch.testing.assert_close(field[0].weight.grad, sum(alone))


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_learned_times(sensitivity):
    model = NeuralODE(Rotation(), sensitivity=sensitivity, t_span=nn.Parameter(torch.tensor([0.0, 1.0])), **TIGHT)
    assert "t_span" in dict(model.named_parameters())
    x0 = torch.tensor([[1.0, 0.0]])
    model.trajectory(x0)[-1, 0, 0].backward()  # cos(t1 - t0)
    torch.testing.assert_close(model.t_span.grad, math.sin(1) * torch.tensor([1.0, -1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_with_and_without_training_and_gradients_it_computes_the_same(sensitivity):
    model, x0 = NeuralODE(mlp(), sensitivity=sensitivity), torch.randn(3, 2)
    trained = model.train()(x0)
    evaluated = model.eval()(x0)
    with torch.no_grad():
        plain = model(x0)
    with torch.inference_mode():
        inferred = model(x0)
    for solution in (evaluated, plain, inferred):
        torch.testing.assert_close(trained.x, solution.x)
        assert trained.stats.n_evals == solution.stats.n_evals
    assert trained.x.requires_grad
    assert not plain.x.requires_grad


# --- errors ---


def test_errors_at_construction():
    with pytest.raises(TypeError, match="vector_field: got a str"):
        NeuralODE("linear")
    with pytest.raises(TypeError, match="vector_field: got the signature"):
        NeuralODE(lambda: None)
    with pytest.raises(ValueError, match=r"solver: got 'tsit', .* did you mean 'tsit5'"):
        NeuralODE(mlp(), solver="tsit")
    with pytest.raises(TypeError, match="solver: got the class"):
        NeuralODE(mlp(), solver=Heun)
    with pytest.raises(ValueError, match=r"sensitivity: got 'adjoin', .* did you mean 'adjoint'"):
        NeuralODE(mlp(), sensitivity="adjoin")
    with pytest.raises(TypeError, match="sensitivity: got a float"):
        NeuralODE(mlp(), sensitivity=1.0)


def test_split_field():
    """A Hamiltonian network whose parts are solved in turns, as by the layer below."""
    force, velocity = torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 2).double()
    field = SplitField(lambda t, p: velocity(p), lambda t, q: torch.tanh(force(q)) * t)
    field.networks = torch.nn.ModuleList([force, velocity])
    model = NeuralODE(field, solver="verlet", step_size=0.1, t_span=(0.0, 0.5, 1.0))
    start = torch.ones(3, 2).double(), torch.zeros(3, 2).double()
    _, (q, p) = model(start)
    expected = odeint(field, start, (0.0, 0.5, 1.0), solver="verlet", step_size=0.1).x
    torch.testing.assert_close((q, p), expected, rtol=0, atol=0)
    (q[-1].square().sum() + p[-1].sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_field_and_solver_have_to_go_together():
    field = SplitField(lambda t, p: p, lambda t, q: -q)
    with pytest.raises(TypeError, match=r"vector_field: got a Sequential, expected a SplitField\(a, b\) for Verlet"):
        NeuralODE(mlp(), solver="verlet")
    with pytest.raises(TypeError, match=r"vector_field: got a SplitField, expected a field .* for Tsit5"):
        NeuralODE(field)
    with pytest.raises(
        ValueError, match=r"integral_loss: got one beside a SplitField, .* expected None; try one field"
    ):
        NeuralODE(field, solver="verlet", integral_loss=lambda t, x: x[0].sum(-1))


BAD_SETTINGS = {
    "rtol": (ValueError, {"rtol": -1.0}),
    "atol": (TypeError, {"atol": "small"}),
    "t_span": (ValueError, {"t_span": (0.0, 2.0, 1.0)}),
    "step_size": (ValueError, {"step_size": 0.0}),
    "max_steps": (ValueError, {"max_steps": 0}),
    "controller": (ValueError, {"solver": "rk4", "controller": PIDController()}),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_wrong_settings_are_refused_at_construction(name):
    error, settings = BAD_SETTINGS[name]
    with pytest.raises(error, match=f"{name}: got"):
        NeuralODE(mlp(), **settings)


BAD_CALLS = {
    "x is NaN": (ValueError, "x0", torch.full((1, 2), torch.nan), [0.0, 1.0]),
    "x of integers": (TypeError, "x0", torch.ones(1, 2, dtype=torch.int64), [0.0, 1.0]),
    "no times": (ValueError, "t_span", torch.ones(1, 2), []),
    "times turn back": (ValueError, "t_span", torch.ones(1, 2), [0.0, 1.0, 0.5]),
    "times are a number": (TypeError, "t_span", torch.ones(1, 2), 1.0),
}


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
@pytest.mark.parametrize("with_integral", [False, True])
@pytest.mark.parametrize("which", BAD_CALLS)
def test_bad_calls(sensitivity, with_integral, which):
    error, match, x, t_span = BAD_CALLS[which]
    loss = (lambda t, x: x.sum(-1)) if with_integral else None
    with pytest.raises(error, match=match):
        NeuralODE(nn.Identity(), sensitivity=sensitivity, integral_loss=loss)(x, t_span)


def test_trainable_solver_with_the_adjoint():
    model = NeuralODE(mlp(), solver=RungeKutta2(0.5, trainable=True), sensitivity="adjoint")
    with pytest.raises(ValueError, match="trainable solver"):
        model(torch.ones(1, 2))


def test_a_field_of_another_shape():
    with pytest.raises(ValueError, match=r"f: returned shape \[1, 3\], expected \[1, 2\]"):
        NeuralODE(nn.Linear(2, 3))(torch.ones(1, 2))


def test_is_solved_by_the_sensitivity_layer():
    """The wrapper adds nothing: same numbers as the handler gives."""
    net, x0 = mlp(), torch.randn(3, 2)
    sol = NeuralODE(net, solver="bosh3", rtol=1e-5)(x0, [0.0, 2.0])
    direct = dyn_sensitivity.odeint(lambda t, x: net(x), x0, [0.0, 2.0], solver="bosh3", rtol=1e-5)
    assert torch.equal(sol.x, direct.x)
    assert sol.stats.n_evals == direct.stats.n_evals
