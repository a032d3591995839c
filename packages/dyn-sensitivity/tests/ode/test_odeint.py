from __future__ import annotations

import inspect

import pytest
import torch

import dyn_numerics
from dyn_numerics import Solution
from dyn_sensitivity import (
    Autograd,
    Backsolve,
    ForwardMode,
    GaussQuadrature,
    Interpolating,
    RecursiveCheckpoint,
    Reversible,
    SensitivityAlgorithm,
    odeint,
)
from dyn_sensitivity.ode.odeint import ALGORITHMS, algorithm


def test_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"sensitivity: got 'adjiont', expected one of autograd, .*; .*'adjoint'"):
        odeint(lambda t, x: x, torch.ones(1), [0, 1], sensitivity="adjiont")
    with pytest.raises(ValueError, match=f"expected one of {', '.join(ALGORITHMS)}$"):
        odeint(lambda t, x: x, torch.ones(1), [0, 1], sensitivity="zzz")


@pytest.mark.parametrize("wrong", [None, 3, Backsolve])
def test_refuses_what_is_no_algorithm(wrong):
    with pytest.raises(TypeError, match=r"sensitivity: got (a|the) .*, expected a name or a dyn_sensitivity"):
        odeint(lambda t, x: x, torch.ones(1), [0, 1], sensitivity=wrong)


def test_names():
    known = {
        "autograd": Autograd,
        "checkpoint": RecursiveCheckpoint,
        "reversible": Reversible,
        "adjoint": Backsolve,
        "interpolated_adjoint": Interpolating,
        "gauss": GaussQuadrature,
        "forward": ForwardMode,
    }
    assert {name: type(algorithm(name)) for name in ALGORITHMS} == known
    own = Backsolve(rtol=1e-3)
    assert algorithm(own) is own


def test_takes_everything_that_the_numerics_take_with_the_same_defaults():
    here, there = inspect.signature(odeint).parameters, inspect.signature(dyn_numerics.odeint).parameters
    assert set(here) - set(there) == {"sensitivity", "params", "integral_loss"}
    assert {name: here[name].default for name in there} == {name: there[name].default for name in there}


def test_an_algorithm_of_ones_own_gets_the_problem():
    class Own(SensitivityAlgorithm):
        def solve(self, f, x0, t_span, *, args, params, **options) -> Solution:
            self.seen = (f, x0, t_span, args, params, options)
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)

    def f(t, x, a):
        return a * x

    own, x0, p = Own(), torch.ones(1), torch.ones(1, requires_grad=True)
    sol = odeint(f, x0, [0, 1], sensitivity=own, args=[2.0], params=[p], rtol=1e-4, max_steps=99)
    assert own.seen[:5] == (f, x0, [0, 1], (2.0,), (p,))
    assert own.seen[5]["rtol"] == 1e-4
    assert own.seen[5]["max_steps"] == 99
    assert sol.x[-1].item() == pytest.approx(7.389, rel=1e-3)


BAD = {
    "x0 is NaN": (ValueError, "x0", {"x0": torch.tensor([torch.nan])}),
    "x0 of integers": (TypeError, "x0", {"x0": torch.ones(1, dtype=torch.int64)}),
    "x0 is a list": (TypeError, "x0", {"x0": [1.0]}),
    "t_span is None": (TypeError, "t_span", {"t_span": None}),
    "t_span is empty": (ValueError, "t_span", {"t_span": []}),
    "t_span turns back": (ValueError, "t_span", {"t_span": [0.0, 1.0, 0.5]}),
    "t_span is NaN": (ValueError, "t_span", {"t_span": torch.tensor([0.0, torch.nan])}),
    "rtol is zero": (ValueError, "rtol", {"rtol": 0.0}),
    "unknown solver": (ValueError, "tsit5", {"solver": "tsit"}),
    "field is a number": (TypeError, "f: got a float", {"f": 1.0}),
    "field of x alone": (TypeError, "f: got a field", {"f": lambda x: x}),
    "field of another shape": (ValueError, "f: returned shape", {"f": lambda t, x: x.sum()}),
    "field of another dtype": (TypeError, "f: returned dtype", {"f": lambda t, x: x.float()}),
    "field of another structure": (TypeError, "f: returned", {"f": lambda t, x: (x, x)}),
    "field that returns a number": (TypeError, "f: returned", {"f": lambda t, x: 1.0}),
}


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
@pytest.mark.parametrize("which", BAD)
def test_bad_input_is_refused_by_name(sensitivity, which):
    error, match, change = BAD[which]
    good = {"f": lambda t, x: -x, "x0": torch.ones(1, requires_grad=True), "t_span": [0.0, 1.0]}
    if sensitivity == "reversible":
        good["solver"] = "reversible_heun"
    with pytest.raises(error, match=match):
        odeint(**good | change, sensitivity=sensitivity)


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
def test_params_that_cannot_have_gradients_are_refused(sensitivity):
    solver = "reversible_heun" if sensitivity == "reversible" else "tsit5"

    def solve(param):
        f, x0 = lambda t, x: param * x, torch.ones(1)
        return odeint(f, x0, [0, 1], params=(param,), sensitivity=sensitivity, solver=solver)

    with pytest.raises(TypeError, match=r"params: got dtype torch.int64 at index 0, which has no gradient"):
        solve(torch.ones(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="params: got at index 0 a tensor that is detached"):
        solve(torch.ones(1))
    solve(torch.nn.Parameter(torch.ones(1), requires_grad=False))  # it is frozen
    with torch.no_grad():
        solve(torch.ones(1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (3, r"params: got a int, expected a sequence of tensors; try params=\(tensor,\)"),
        (torch.ones(2), r"params: got a Tensor, expected a sequence of tensors; try params=\(tensor,\)"),
        ([torch.ones(2, requires_grad=True), 3], r"params: got a int at index 1, expected a tensor"),
        ("rate", r"params: got a str at index 0, expected a tensor"),
    ],
)
def test_params_that_are_no_tensors_are_refused(params, message):
    with pytest.raises(TypeError, match=message):
        odeint(lambda t, x: -x, torch.ones(1), [0, 1], params=params, sensitivity="adjoint")


def test_params_may_come_one_by_one():
    """An iterator is read once; nothing of it is lost."""
    rate = torch.tensor(-0.5, requires_grad=True)
    x = odeint(lambda t, x: rate * x, torch.ones(1), [0, 1], params=iter([rate]), sensitivity="adjoint", rtol=1e-9).x
    (gradient,) = torch.autograd.grad(x[-1].sum(), rate)
    assert gradient.item() == pytest.approx(torch.exp(rate).item(), rel=1e-6)
