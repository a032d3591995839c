"""Never a silent zero: what the adjoint cannot differentiate it refuses, by name."""

from __future__ import annotations

import functools
import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from dyn_numerics import Controller, Euler, HyperStepper, RungeKutta2, Save, Verdict
from dyn_sensitivity import Backsolve, odeint


def wanted(*shape):
    return torch.randn(shape, requires_grad=True)


class Attributes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.inner.scale = wanted(2)
        self.register_buffer("offset", wanted(2))

    def forward(self, t, x):
        return self.inner(x) * self.inner.scale + self.offset


def capture_leaf():
    theta = wanted(2)
    return lambda t, x: theta * x, "captures theta,"


def capture_two():
    theta, phi = wanted(2), wanted(2)
    return lambda t, x: theta * x + phi, r"captures (theta, phi|phi, theta),"


def capture_computed():
    theta = wanted(2).exp()
    return lambda t, x: theta * x, "captures theta,"


def capture_in_module():
    return Attributes(), r"captures (f.inner.scale, f.offset|f.offset, f.inner.scale),"


def capture_in_partial():
    return functools.partial(lambda theta, t, x, phi: theta * x, wanted(2), phi=None), r"captures f.args\[0\],"


def capture_in_keyword():
    return functools.partial(lambda t, x, theta: theta * x, theta=wanted(2)), "captures theta,"


def capture_in_container():
    weights = {"one": [wanted(2)]}
    return lambda t, x: weights["one"][0] * x, r"captures weights\['one'\]\[0\],"


def capture_in_object():
    class Field:
        def __init__(self):
            self.theta = wanted(2)

        def __call__(self, t, x):
            return self.theta * x

    return Field(), "captures f.theta,"


def capture_in_bound_method():
    class Field:
        def __init__(self):
            self.theta = wanted(2)

        def slope(self, t, x):
            return self.theta * x

    return Field().slope, "captures f.theta,"


def capture_where_no_name_is_found():
    near = SimpleNamespace(far=SimpleNamespace(theta=wanted(2)))
    return lambda t, x: near.far.theta * x, r"captures a tensor of shape \[2\],"


CAPTURES = [
    capture_leaf,
    capture_two,
    capture_computed,
    capture_in_module,
    capture_in_partial,
    capture_in_keyword,
    capture_in_container,
    capture_in_object,
    capture_in_bound_method,
    capture_where_no_name_is_found,
]


@pytest.mark.parametrize("make", CAPTURES, ids=lambda make: make.__name__)
def test_undeclared_captured_tensor(make):
    f, message = make()
    with pytest.raises(ValueError, match="f: " + message):
        odeint(f, torch.ones(2), [0.0, 1.0], sensitivity="adjoint")


def test_message_says_what_to_do():
    theta = wanted(2)
    with pytest.raises(ValueError, match=re.escape("args=(...)")) as caught:
        odeint(lambda t, x: theta * x, torch.ones(2), [0.0, 1.0], sensitivity="adjoint")
    assert "params=(...)" in str(caught.value)
    assert "sensitivity='autograd'" in str(caught.value)


def test_initial_state_that_the_field_captures():
    """A field that knows where it started: only the path through the state would be differentiated."""
    x0 = wanted(2)
    with pytest.raises(ValueError, match="f: captures x0,"):
        odeint(lambda t, x: x0 - x, x0, [0.0, 1.0], sensitivity="adjoint")


def test_time_that_the_field_captures():
    t_span = torch.tensor([0.0, 1.0], requires_grad=True)
    with pytest.raises(ValueError, match="f: captures t_span,"):
        odeint(lambda t, x: x * t_span[-1], wanted(2), t_span, sensitivity="adjoint")


def test_arg_that_the_field_captures_besides():
    theta = wanted(2)
    with pytest.raises(ValueError, match="f: captures theta,"):
        odeint(lambda t, x, a: (a + theta) * x, torch.ones(2), [0.0, 1.0], args=(theta,), sensitivity="adjoint")


def test_tensor_computed_from_an_arg():
    theta = wanted(2)
    double = 2 * theta
    with pytest.raises(ValueError, match="f: captures double,"):
        odeint(lambda t, x, a: (a + double) * x, torch.ones(2), [0.0, 1.0], args=(theta,), sensitivity="adjoint")


@pytest.mark.parametrize("declare", ["args", "params"])
def test_sibling_of_a_declared_tensor(declare):
    """Two outputs of one operation share a node of the graph; declaring one is not declaring the other."""
    one, other = wanted(2, 2).unbind()
    f = {"args": lambda t, x, a: a * x + other, "params": lambda t, x: one * x + other}[declare]
    with pytest.raises(ValueError, match="f: captures other,"):
        odeint(f, torch.ones(2), [0.0, 1.0], sensitivity="adjoint", **{declare: (one,)})


def test_params_that_were_computed_from_each_other():
    """Their gradients would count twice."""
    theta = wanted(2)
    double = 2 * theta
    with pytest.raises(ValueError, match=r"params: got at index 1 a tensor of shape \[2\] that was computed from"):
        odeint(lambda t, x: theta * x + double, wanted(2), [0, 1], params=(theta, double), sensitivity="adjoint")


def test_what_needs_no_gradient_may_be_captured():
    theta, frozen = wanted(2), torch.ones(2)
    x0 = wanted(2)
    x = odeint(lambda t, x: theta.detach() * frozen * x, x0, [0, 1], sensitivity="adjoint", rtol=1e-8, atol=1e-8).x
    x[-1].sum().backward()
    torch.testing.assert_close(x0.grad, theta.detach().exp(), rtol=1e-6, atol=0)


def test_trainable_solver():
    with pytest.raises(ValueError, match="sensitivity: got 'adjoint' with the trainable solver RungeKutta2"):
        odeint(lambda t, x: -x, wanted(2), [0, 1], solver=RungeKutta2(0.5, trainable=True), sensitivity="adjoint")


def test_frozen_trainable_solver_is_taken():
    solver = RungeKutta2(0.5, trainable=True).requires_grad_(False)
    x0 = wanted(2)
    odeint(lambda t, x: -x, x0, [0, 1], solver=solver, sensitivity="adjoint").x[-1].sum().backward()
    torch.testing.assert_close(x0.grad, torch.full((2,), 0.5))


def test_what_a_function_keeps():
    with pytest.raises(ValueError, match=r"save: got Save\(.*\) with sensitivity='adjoint'"):
        odeint(lambda t, x: -x, wanted(2), [0, 1], save=Save(fn=lambda t, x: x.sum()), sensitivity="adjoint")


def test_a_solution_that_is_to_go_on():
    sol = odeint(lambda t, x: -x, wanted(2), [0.0, 1.0], sensitivity="adjoint")
    with pytest.raises(ValueError, match=r"resume: got a solution of sensitivity='adjoint', expected .*'autograd'"):
        sol.resume([1.0, 2.0])
    with torch.no_grad():
        assert odeint(lambda t, x: -x, wanted(2), [0.0, 1.0], sensitivity="adjoint").resume([1.0, 2.0]).x is not None


@pytest.mark.parametrize("save", ["steps", "dense"])
def test_other_things_to_save(save):
    with pytest.raises(ValueError, match=f"save: got '{save}' with sensitivity='adjoint'"):
        odeint(lambda t, x: -x, wanted(2), [0, 1], save=save, sensitivity="adjoint")


def captured_tangent(d):
    return odeint(lambda t, x: -d * x, torch.ones(2), [0.0, 1.0], sensitivity="adjoint").x[-1]


def tangent_of_an_arg(d):
    return odeint(lambda t, x, a: -a["d"] * x, torch.ones(2), [0.0, 1.0], args=({"d": d},), sensitivity="adjoint").x[-1]


class Solve(nn.Module):
    def __init__(self):
        super().__init__()
        self.field = nn.Linear(2, 2, bias=False)
        self.field.weight.requires_grad_(False)

    def forward(self, x):
        return odeint(lambda t, x: self.field(x), x, [0.0, 1.0], sensitivity="adjoint").x[-1]


def tangent_of_a_parameter(d, model=Solve()):  # noqa: B008
    return functional_call(model, {"field.weight": torch.diag(d)}, (torch.ones(2),))


def tangent_of_the_state(d):
    return odeint(lambda t, x: -x, d, [0.0, 1.0], sensitivity="adjoint").x[-1]


def tangent_of_a_time(d):
    return odeint(lambda t, x: -x, torch.ones(2), [0.0, d[0]], sensitivity="adjoint").x[-1]


TANGENTS = {
    captured_tangent: "f: depends on d, which carries a forward-mode derivative",
    tangent_of_an_arg: r"f: depends on args\[0\], which carries a forward-mode derivative",
    tangent_of_a_parameter: "f: depends on .*field.weight, which carries a forward-mode derivative",
    tangent_of_the_state: "x0: carries a forward-mode derivative, expected none",
    tangent_of_a_time: "t_span: carries a forward-mode derivative, expected none",
}


@pytest.mark.parametrize("solve", TANGENTS, ids=lambda solve: solve.__name__)
@pytest.mark.parametrize("wanted_in_reverse_too", [False, True])
def test_forward_mode_derivatives_are_refused(solve, wanted_in_reverse_too):
    """Reverse mode would drop them: a silent zero."""
    d = torch.ones(2, requires_grad=wanted_in_reverse_too)
    with pytest.raises(ValueError, match=TANGENTS[solve]):
        jvp(solve, (d,), (torch.ones(2),))


@pytest.mark.parametrize("name", ["adjoint", "interpolated_adjoint", "gauss"])
def test_vmap_is_refused(name):
    with pytest.raises(ValueError, match=f"sensitivity: got '{name}' under torch.func, .*'autograd'"):
        torch.func.vmap(lambda x: odeint(lambda t, x: -x, x, [0.0, 1.0], sensitivity=name).x[-1])(wanted(2, 2))


def test_parameter_written_to_between_forward_and_backward():
    field = nn.Linear(2, 2)
    x = odeint(lambda t, x: field(x), torch.ones(2), [0.0, 1.0], sensitivity="adjoint").x
    with torch.no_grad():
        field.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


@pytest.mark.parametrize("which", ["wants gradients", "constant"])
def test_arg_written_to_between_forward_and_backward(which):
    a = torch.ones(2, requires_grad=which == "wants gradients")
    x = odeint(lambda t, x, rest: -rest["a"] * x, wanted(2), [0.0, 1.0], args=({"a": a},), sensitivity="adjoint").x
    with torch.no_grad():
        a.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


@pytest.mark.parametrize("loss", [lambda x: x[-1].sum(), lambda x: x.square().sum()], ids=["linear", "quadratic"])
@pytest.mark.parametrize("which", ["x0", "t_span", "arg", "parameter"])
def test_second_derivative(loss, which):
    """It would be a silent zero where the first derivative is a term among others."""
    field = nn.Linear(2, 2)
    inputs = {"x0": wanted(2), "t_span": torch.tensor([0.0, 0.5, 1.0], requires_grad=True), "arg": wanted(2)}
    x = odeint(
        lambda t, x, a: torch.tanh(field(x)) * a,
        inputs["x0"],
        inputs["t_span"],
        args=(inputs["arg"],),
        sensitivity=Backsolve(),
    ).x
    variable = field.weight if which == "parameter" else inputs[which]
    (first,) = torch.autograd.grad(loss(x), variable, create_graph=True)
    for again in (variable, inputs["arg"]):
        with pytest.raises(RuntimeError, match=r"differentiated again, .* use sensitivity='autograd'"):
            torch.autograd.grad(first.square().sum() + again.sum(), again, retain_graph=True)


def test_a_graph_of_the_gradient_changes_no_value():
    x0, t_span = wanted(2), torch.tensor([0.0, 1.0], requires_grad=True)
    x = odeint(lambda t, x: torch.sin(x), x0, t_span, sensitivity="adjoint").x
    plain = torch.autograd.grad(x.sum(), [x0, t_span], retain_graph=True)
    again = torch.autograd.grad(x.sum(), [x0, t_span], create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert all(not a.requires_grad and b.requires_grad for a, b in zip(plain, again, strict=True))


def test_a_controller_that_would_not_be_trained():
    class Learned(Controller):
        differentiable = True

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.9))

        def judge(self, error, error_order, memory):
            return Verdict(error < float("inf"), self.gain, memory)

    with pytest.raises(ValueError, match=r"controller: got Learned.* use sensitivity='autograd', or freeze it"):
        odeint(
            lambda t, x: -x, torch.ones(1, requires_grad=True), [0.0, 1.0], sensitivity="adjoint", controller=Learned()
        )


@pytest.mark.parametrize("backward", [None, "rk4"])
def test_a_solver_that_knows_the_structure_of_the_state_steps_no_adjoint(backward):
    solver = HyperStepper(Euler(), lambda t, x, f: -f / 2)
    x0 = wanted(2)
    options = {"solver": solver, "step_size": 0.01, "sensitivity": Backsolve(solver=backward)}
    if backward is None:
        with pytest.raises(ValueError, match=r"sensitivity: got .* to solve backward by HyperStepper, .*; give"):
            odeint(lambda t, x: -x, x0, [0, 1], **options)
        return
    odeint(lambda t, x: -x, x0, [0, 1], **options).x[-1].sum().backward()
    torch.testing.assert_close(x0.grad, torch.full((2,), math.exp(-1)), rtol=1e-6, atol=0)


def test_a_network_of_the_solver_is_not_trained_by_the_adjoint():
    solver = HyperStepper(Euler(), torch.nn.Bilinear(2, 2, 2))
    options = {"solver": solver, "step_size": 0.1, "sensitivity": Backsolve(solver="rk4")}
    with pytest.raises(ValueError, match="sensitivity: got 'adjoint' with the trainable solver HyperStepper"):
        odeint(lambda t, x: -x, wanted(2), [0, 1], **options)


ADJOINTS = ["adjoint", "interpolated_adjoint", "gauss"]


@pytest.mark.parametrize("name", ADJOINTS)
def test_a_gradient_of_torch_func_to_what_f_captures_is_refused(name):
    """Within the solve nothing would tell that it is differentiable: it would be zero."""
    with pytest.raises(ValueError, match=f"sensitivity: got '{name}' under torch.func"):
        torch.func.grad(lambda a: odeint(lambda t, x: -a * x, torch.ones(2), [0.0, 1.0], sensitivity=name).x.sum())(
            torch.tensor(1.0)
        )


@pytest.mark.parametrize("name", ADJOINTS)
def test_a_capture_that_is_needed_later_is_refused_where_nothing_else_wants_a_gradient(name):
    c = wanted()
    with pytest.raises(ValueError, match="f: captures c"):
        odeint(lambda t, x: x * c if t > 0.6 else x, torch.ones(2), [0.0, 1.0], sensitivity=name)
