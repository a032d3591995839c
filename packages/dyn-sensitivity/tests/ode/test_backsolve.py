from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import dyn_numerics
from dyn_numerics import FixedStep, MaxStepsError, Midpoint, PIDController, RungeKutta2, Status
from dyn_numerics.norms import rms_norm
from dyn_sensitivity import Backsolve, odeint


class Counted:
    """Counts the calls of a field."""

    def __init__(self, f):
        self.f = f
        self.calls = 0

    def __call__(self, t, x, *args):
        self.calls += 1
        return self.f(t, x, *args)

    def taken(self):
        taken, self.calls = self.calls, 0
        return taken


def mlp(width=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))


def pendulum(t, x, a):
    return torch.stack([x[1], -a * torch.sin(x[0]) + torch.cos(t)])


# --- the forward solve ---


@pytest.mark.parametrize("options", [{}, {"solver": "bosh3", "rtol": 1e-6}, {"solver": "rk4", "step_size": 0.07}])
@pytest.mark.parametrize("times_want_gradients", [False, True])
def test_forward_is_that_of_autograd_bit_for_bit(options, times_want_gradients):
    x0, a = torch.tensor([0.4, 0.2], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    t_span = torch.linspace(0, 2, 7, requires_grad=times_want_gradients)
    f = Counted(pendulum)
    one, evals = odeint(f, x0, t_span, args=(a,), sensitivity="autograd", **options), f.taken()
    two = odeint(f, x0, t_span, args=(a,), sensitivity="adjoint", **options)
    torch.testing.assert_close(one.x, two.x)
    assert two.x.requires_grad
    assert torch.equal(two.t, t_span)
    assert evals == f.taken() == one.stats.n_evals == two.stats.n_evals
    assert repr(one.stats) == repr(two.stats)


def test_structure_of_the_state_is_kept():
    x0 = {"a": torch.ones(2, requires_grad=True), "b": (torch.zeros(3),)}
    sol = odeint(lambda t, x: {"a": -x["a"], "b": (x["b"][0] + 1,)}, x0, [0.0, 1.0], sensitivity="adjoint")
    assert sol.x["a"].shape == (2, 2)
    assert sol.x["b"][0].shape == (2, 3)
    t, x = sol
    assert x["b"][0].requires_grad
    assert t is sol.t


@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
def test_without_gradients_it_is_the_plain_solve(save):
    x0 = torch.tensor([0.4, 0.2], requires_grad=True)
    trainable = RungeKutta2(0.5, trainable=True)
    options = {"args": (2.0,), "save": save, "solver": trainable, "step_size": 0.1}
    with torch.no_grad():
        sol = odeint(pendulum, x0, [0.0, 1.0], sensitivity="adjoint", **options)
        plain = dyn_numerics.odeint(pendulum, x0, [0.0, 1.0], **options)
    torch.testing.assert_close(sol.x, plain.x)
    assert not sol.x.requires_grad
    assert (sol.dense is not None) == (save == "dense")


def test_nothing_to_differentiate():
    sol = odeint(lambda t, x: -x, torch.ones(2), [0.0, 1.0], sensitivity="adjoint")
    assert not sol.x.requires_grad


# --- memory ---


def saved_tensors(sensitivity, rtol):
    field, saved = mlp(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape) or x, lambda x: x):
        sol = odeint(lambda t, x: field(x), torch.ones(3, 2), [0, 30], sensitivity=sensitivity, rtol=rtol, atol=rtol)
    return len(saved), sol.stats.n_accepted.item()


def test_saved_tensors_do_not_grow_with_the_number_of_steps():
    (few, few_steps), (many, many_steps) = saved_tensors("adjoint", 1e-2), saved_tensors("adjoint", 1e-10)
    assert many_steps > 5 * few_steps
    assert many == few < 20
    assert saved_tensors("autograd", 1e-10)[0] > 5 * saved_tensors("autograd", 1e-2)[0]


def test_a_solution_is_freed_without_the_cycle_collector():
    class Token:
        pass

    token = Token()
    alive = weakref.ref(token)

    def solve(token):
        def f(t, x):
            return -x if token else x

        return odeint(f, torch.ones(2, requires_grad=True), [0.0, 1.0], sensitivity="adjoint")

    gc.collect()
    gc.disable()
    try:
        sol = solve(token)
        del token
        sol.x.sum().backward()
        assert alive() is not None
        del sol
        assert alive() is None
    finally:
        gc.enable()


# --- the backward solve ---


def test_backward_evaluates_only_what_the_loss_needs():
    f = Counted(lambda t, x: -x)
    t_span = [0.0, 0.5, 1.0]

    def evaluations(output):
        x = odeint(f, torch.ones(2, requires_grad=True), t_span, sensitivity="adjoint", solver="rk4").x
        f.taken()
        x[output].sum().backward()
        return f.taken()

    assert evaluations(0) == 0
    assert evaluations(1) == 1 + 4  # whether f is still the same, and one step of rk4
    assert evaluations(2) == 1 + 8  # on the grid of the forward solve


def full_norm(error):
    return rms_norm(torch.cat([leaf.reshape(-1) for leaf in tree_leaves(error)]))


def test_seminorm_saves_evaluations():
    """P. Kidger et al. report 40 % and more; here the parameters' gradients are harder than state and adjoint."""
    torch.manual_seed(1)
    field = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2))
    f = Counted(lambda t, x: field(torch.cat([x, torch.sin(12 * t).expand(len(x), 1)], 1)))
    x0 = torch.randn(8, 2)
    evaluations, gradients = {}, {}
    for name, algorithm in {"semi": "adjoint", "full": Backsolve(norm=full_norm)}.items():
        x = odeint(f, x0, [0.0, 2.0], sensitivity=algorithm, rtol=1e-6, atol=1e-6).x
        f.taken()
        gradients[name] = torch.autograd.grad(30 * x[-1].square().sum(), list(field.parameters()))
        evaluations[name] = f.taken()
    assert evaluations["semi"] < 0.7 * evaluations["full"]
    for semi, full in zip(gradients["semi"], gradients["full"], strict=True):
        torch.testing.assert_close(semi, full, rtol=1e-4, atol=1e-4 * full.abs().max().item())


def test_own_norm_sees_state_adjoint_and_gradients():
    seen = []

    def norm(error):
        state, adjoint, gradients = error
        seen.append(tuple([list(leaf.shape) for leaf in part] for part in (state, adjoint, gradients)))
        return rms_norm(state[0])

    field, a = mlp(4), torch.tensor(0.3, requires_grad=True)
    x0 = (torch.ones(3, 2), torch.zeros(5))
    x, _ = odeint(
        lambda t, x, a: (a * field(x[0]), x[1]), x0, [0.0, 1.0], args=(a,), sensitivity=Backsolve(norm=norm)
    ).x
    assert not seen  # the forward solve has its own
    x.sum().backward()
    assert set(map(str, seen)) == {str(([[3, 2], [5]], [[3, 2], [5]], [[], [4, 2], [4], [2, 4], [2]]))}


def backward_cost(algorithm, **options):
    f = Counted(pendulum)
    x0 = torch.tensor([0.4, 0.2], requires_grad=True)
    x = odeint(f, x0, [0.0, 3.0], args=(2.0,), sensitivity=algorithm, **options).x
    f.taken()
    (gradient,) = torch.autograd.grad(x[-1].sum(), x0)
    return f.taken(), gradient


def test_own_tolerances_are_honoured():
    reference = backward_cost(Backsolve(), rtol=1e-11, atol=1e-11)[1]
    loose, coarse = backward_cost(Backsolve(rtol=1e-3, atol=1e-3), rtol=1e-9, atol=1e-9)
    same, fine = backward_cost(Backsolve(), rtol=1e-9, atol=1e-9)
    tight, finer = backward_cost(Backsolve(rtol=1e-11, atol=1e-11), rtol=1e-9, atol=1e-9)
    assert loose < same / 3 < tight / 4
    assert 1e-6 < (coarse - reference).abs().max() < 1e-1
    assert (fine - reference).abs().max() < 1e-6
    assert (finer - reference).abs().max() < 1e-7
    assert backward_cost(Backsolve(rtol=1e-3), rtol=1e-9, atol=1e-9)[0] < same  # each by itself
    assert backward_cost(Backsolve(atol=1e-3), rtol=1e-9, atol=1e-9)[0] < same


def test_own_solver_is_honoured():
    assert backward_cost(Backsolve(solver="rk4"), solver="euler")[0] == 1 + 4
    assert backward_cost(Backsolve(solver=Midpoint()), solver="dopri5", step_size=1.0)[0] == 1 + 2 * 3
    adaptive, gradient = backward_cost(Backsolve(solver="bosh3", rtol=1e-8, atol=1e-8), solver="rk4", step_size=None)
    assert adaptive > 100
    reference = backward_cost(Backsolve(), rtol=1e-11, atol=1e-11)[1]
    assert (gradient - reference).abs().max() > 1e-3  # a single step of rk4 forward is coarse


@pytest.mark.parametrize("tolerance", [torch.tensor([1e-9, 1e-3]), torch.tensor(1e-9)])
def test_the_strictest_of_several_tolerances_is_taken_backward(tolerance):
    number, _ = backward_cost(Backsolve(), rtol=1e-9, atol=1e-9)
    tensor, _ = backward_cost(Backsolve(), rtol=tolerance, atol=tolerance)
    assert abs(number - tensor) <= 0.1 * number


@pytest.mark.parametrize("options", [{"solver": "dopri5", "controller": FixedStep()}, {"solver": "euler"}])
def test_fixed_steps_stay_fixed_backward(options):
    assert backward_cost(Backsolve(), **options)[0] <= 1 + 7


def test_a_backward_solver_without_steps_to_follow_is_refused():
    """A forward solve with adaptive steps has no grid; one step from output to output would be far off."""
    with pytest.raises(ValueError, match=r"got Backsolve\(norm=.*, solver='rk4', .* cannot choose its steps"):
        backward_cost(Backsolve(solver="rk4"))


def test_the_controller_of_the_forward_solve_is_kept_backward():
    careful = PIDController(safety=0.3, first_step=1e-3)
    evaluations, gradient = backward_cost(Backsolve(), controller=careful)
    assert evaluations > 1.3 * backward_cost(Backsolve())[0]
    assert (careful.first_step, careful.norm) == (1e-3, None)
    torch.testing.assert_close(gradient, backward_cost(Backsolve(), rtol=1e-9)[1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"solver": "tsit"}, {"rtol": -1.0}, {"atol": 0.0}])
def test_wrong_settings_are_refused_when_they_are_made(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
        Backsolve(**wrong)


class Largest(nn.Module):
    def forward(self, error):
        return error.abs().max()


@pytest.mark.parametrize("norm", [lambda error: error.abs().max(), Largest()], ids=["function", "module"])
def test_the_controller_of_the_forward_solve_may_carry_a_norm_of_its_own(norm):
    controller = PIDController(norm=norm)
    _, gradient = backward_cost(Backsolve(), controller=controller, rtol=1e-9, atol=1e-9)
    reference = backward_cost(Backsolve(), rtol=1e-11, atol=1e-11)[1]
    torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-6)


# --- parameters, args and dtypes ---


def test_frozen_parameters_get_nothing_and_unused_ones_zeros():
    field = mlp()
    field.spare = nn.Linear(2, 2)
    field[0].bias.requires_grad_(False)
    x0 = torch.ones(3, 2)
    odeint(lambda t, x: field[2](field[1](field[0](x))), x0, [0.0, 1.0], sensitivity="adjoint").x[-1].sum().backward()
    assert field[0].weight.grad.abs().max() > 1e-3
    assert field[0].bias.grad is None
    assert torch.equal(field.spare.weight.grad, torch.zeros(2, 2))
    assert x0.grad is None


def test_unused_args_and_params_get_zeros():
    x0, a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    x = odeint(
        lambda t, x, a, frozen: -x * frozen, x0, [0, 1], args=(a, frozen), params=(b, frozen), sensitivity="adjoint"
    ).x
    x.sum().backward()
    assert torch.equal(a.grad, torch.zeros(2))
    assert torch.equal(b.grad, torch.zeros(3))
    assert frozen.grad is None


def test_gradients_have_the_dtypes_of_their_inputs_and_f_gets_those_of_the_state():
    x0 = torch.ones(2, dtype=torch.float32, requires_grad=True)
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    t_span = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    seen = set()

    def f(t, x, a):
        seen.add((t.dtype, t.shape, x.dtype))
        return (a * x).float() + t

    odeint(f, x0, t_span, args=(a,), sensitivity="adjoint").x[-1].sum().backward()
    assert seen == {(torch.float32, torch.Size([]), torch.float32)}
    assert (x0.grad.dtype, a.grad.dtype, t_span.grad.dtype) == (torch.float32, torch.float64, torch.float64)
    assert x0.grad[0].item() == pytest.approx(torch.tensor(0.5).exp().item(), rel=1e-3)


def test_empty_batch_and_span_without_length():
    x0 = torch.zeros(0, 2, requires_grad=True)
    odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity="adjoint").x.sum().backward()
    assert x0.grad.shape == (0, 2)
    t_span = torch.full((2,), 0.3, requires_grad=True)
    for sensitivity in ("autograd", "adjoint"):
        x = odeint(lambda t, x: -2 * x, torch.ones(1), t_span, sensitivity=sensitivity).x
        assert torch.autograd.grad(x[1].sum(), t_span)[0].tolist() == [2, -2]
    x0 = torch.ones(2, requires_grad=True)
    for t_span in ([1.0], [1.0, 1.0]):
        x0.grad = None
        odeint(lambda t, x: -x, x0, t_span, sensitivity="adjoint").x.sum().backward()
        assert torch.equal(x0.grad, torch.full((2,), float(len(t_span))))


# --- failure ---


def test_outputs_that_a_failed_solve_reached_have_gradients():
    x0 = torch.tensor(1.0, requires_grad=True)
    tight = {"rtol": 1e-9, "atol": 1e-9}
    sol = odeint(lambda t, x: x * x, x0, [0.0, 0.5, 2.0], sensitivity="adjoint", throw=False, **tight)
    assert sol.status is not Status.SUCCESS
    assert sol.x[2].isnan()
    (gradient,) = torch.autograd.grad(sol.x.nansum(), x0)
    assert gradient.item() == pytest.approx(1 + 4, rel=1e-6)  # d/dx0 of x0 + x0 / (1 - x0 / 2)


def test_a_failed_forward_solve_raises_with_the_partial_solution():
    x0 = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(dyn_numerics.SolverError) as caught:
        odeint(lambda t, x: x * x, x0, [0.0, 0.5, 2.0], sensitivity="adjoint")
    assert caught.value.solution.x[1].item() == pytest.approx(2, rel=1e-2)
    assert not getattr(caught.value, "__notes__", [])


def test_a_failed_backward_solve_says_where_it_was():
    x0 = torch.tensor([0.4, 0.2], requires_grad=True)
    x = odeint(pendulum, x0, [0, 9], args=(2.0,), sensitivity=Backsolve(rtol=1e-12, atol=1e-12), max_steps=60).x
    with pytest.raises(MaxStepsError, match=r"sensitivity='adjoint': the backward solve .* try 'interpolated_adjoint'"):
        x[-1].sum().backward()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_gives_gradients_that_are_not(value):
    """As anywhere in PyTorch: loss scaling in mixed precision looks for them."""
    x0, a = torch.tensor([0.4, 0.2], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    t_span = torch.tensor([0.0, 1.0], requires_grad=True)
    (value * odeint(pendulum, x0, t_span, args=(a,), sensitivity="adjoint").x[-1]).sum().backward()
    assert x0.grad.isnan().all()
    assert a.grad.isnan()
    assert t_span.grad.isnan().any()


# --- plain objects ---


def test_pickles_copies_and_prints():
    algorithm = Backsolve(solver="rk4", rtol=1e-4)
    for twin in (pickle.loads(pickle.dumps(algorithm)), copy.deepcopy(algorithm)):
        assert (
            repr(twin)
            == repr(algorithm)
            == ("Backsolve(norm=Seminorm(0, 1), solver='rk4', rtol=0.0001, atol=None, checkpoints=0, quadrature=False)")
        )
        assert twin.norm == algorithm.norm
