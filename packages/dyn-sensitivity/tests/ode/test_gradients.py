"""Algorithms against finite differences, in everything that a field may be and hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import dyn_numerics
import dyn_sensitivity

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
REFERENCE = {"solver": "dopri5", "step_size": 0.05}  # fixed steps, so that differences of its results are smooth
ALGORITHMS = ["autograd", "adjoint", "interpolated_adjoint", "gauss"]
FORWARD = [0.3, 0.5, 0.9, 1.2]
OUTPUTS = {"first": [0], "interior": [1], "last": [-1], "all": [0, 1, 2, 3], "all but last": [0, 1, 2]}


@dataclass
class Problem:
    """A field, what it is called with, and the tensors that get gradients, which it reads."""

    f: Callable[..., Any]
    x0: Any
    inputs: dict[str, Tensor]
    args: tuple[Any, ...] = ()
    params: Callable[[], tuple[Tensor, ...]] = tuple

    def loss(self, odeint: Callable[..., Any], t_span: Any, outputs: list[int], **options: Any) -> Tensor:
        x = odeint(self.f, self.x0, t_span, args=self.args, **options).x
        total = torch.zeros(())
        for leaf in tree_leaves(x):
            kept = leaf[outputs]
            weight = torch.linspace(0.5, 1.5, kept.numel()).reshape(kept.shape)
            total = total + (weight * (kept.real.sin() + 0.5 * kept.abs().square())).sum()
        return total


def leaf(*shape: int, scale: float = 0.5, dtype: torch.dtype = torch.float64) -> Tensor:
    return (scale * torch.randn(shape, dtype=dtype)).requires_grad_()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))


def named(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(x) + torch.sin(3 * t) * x


class Owner:
    """Not a module, but holds one."""

    def __init__(self, field: nn.Module) -> None:
        self.field = field

    def slope(self, t: Tensor, x: Tensor) -> Tensor:
        return self.field(t, x)

    __call__ = slope


class Indirect(nn.Module):
    """Holds a function that holds a module, so that the module is no submodule."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.function(t, x)


global_field: nn.Module


def uses_a_global(t: Tensor, x: Tensor) -> Tensor:
    return global_field(t, x)


def uses_a_global_in_a_comprehension(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([global_field(t, row) for row in x])


def with_default(t: Tensor, x: Tensor, *, field: Callable[..., Tensor]) -> Tensor:
    return field(t, x)


def make_held(how: str) -> Problem:
    """The same field, reached in different ways."""
    global global_field
    field = global_field = Field()
    namespace, several = SimpleNamespace(field=field), {"list": [field]}
    held: dict[str, Callable[..., Any]] = {
        "module": field,
        "closure": lambda t, x: field(t, x),
        "closure over a container": lambda t, x: several["list"][0](t, x),
        "closure over an object": lambda t, x: namespace.field(t, x),
        "default": lambda t, x, field=field: field(t, x),
        "bound method of a module": field.forward,
        "bound method of an object": Owner(field).slope,
        "object with a call": Owner(field),
        "partial": functools.partial(with_default, field=field),
        "partial of a bound method": functools.partial(Owner.slope, Owner(field)),
        "global": uses_a_global,
        "global in a comprehension": uses_a_global_in_a_comprehension,
        "function of a function": lambda t, x: uses_a_global(t, x),
        "function in a module": Indirect(lambda t, x: field(t, x)),
    }
    x0 = leaf(3, 2)
    return Problem(held[how], x0, {"x0": x0, **named(field)})


HELD = [
    "module",
    "closure",
    "closure over a container",
    "closure over an object",
    "default",
    "bound method of a module",
    "bound method of an object",
    "object with a call",
    "partial",
    "partial of a bound method",
    "global",
    "global in a comprehension",
    "function of a function",
    "function in a module",
]


def one_arg() -> Problem:
    x0, a = leaf(3, 2), leaf(2, 2)
    return Problem(lambda t, x, a: torch.tanh(x @ a) + t, x0, {"x0": x0, "a": a}, (a,))


def nested_and_mixed_args() -> Problem:
    x0, a, b, c = leaf(3, 2), leaf(2, 2), leaf(), leaf(2)

    def f(t: Tensor, x: Tensor, weights: dict[str, Any], name: str, rest: tuple[Any, ...]) -> Tensor:
        (power, (c, constant)) = rest
        assert name == "tanh"
        return getattr(torch, name)(x @ weights["a"] + weights["b"]) ** power + c * torch.cos(t) + constant

    args = ({"a": a, "b": b, "none": None}, "tanh", (3, [c, torch.tensor([0.1, -0.2])]))
    return Problem(f, x0, {"x0": x0, "a": a, "b": b, "c": c}, args)


def the_same_arg_twice() -> Problem:
    x0, a = leaf(3, 2), leaf(2, 2)
    return Problem(lambda t, x, a, b: torch.tanh(x @ a) - t * x @ b, x0, {"x0": x0, "a": a}, (a, a))


def x0_as_an_arg() -> Problem:
    x0 = leaf(3, 2)
    return Problem(lambda t, x, start: torch.sin(start) - t * x, x0, {"x0": x0}, (x0,))


def parameter_as_an_arg_too() -> Problem:
    x0, field = leaf(3, 2), nn.Linear(2, 2)
    inputs = {"x0": x0, **named(field)}
    return Problem(lambda t, x, w: torch.tanh(field(x)) - t * x @ w, x0, inputs, (field.weight,))


def pytree_state() -> Problem:
    x0 = {"q": leaf(3, 2), "p": (leaf(2), leaf())}
    a = leaf(2)

    def f(t: Tensor, x: dict[str, Any], a: Tensor) -> dict[str, Any]:
        p, s = x["p"]
        return {"q": torch.cos(x["q"]) * p + s, "p": (x["q"].mean(0) * a, -s * t)}

    return Problem(f, x0, {"q": x0["q"], "p": x0["p"][0], "s": x0["p"][1], "a": a}, (a,))


def n_d_state() -> Problem:
    x0, conv = leaf(2, 2, 3, 3), nn.Conv2d(2, 2, 3, padding=1)
    return Problem(lambda t, x: torch.tanh(conv(x)) - t * x, x0, {"x0": x0, **named(conv)})


def scalar_state() -> Problem:
    x0, a = leaf(), leaf()
    return Problem(lambda t, x, a: a * torch.sin(x) + t, x0, {"x0": x0, "a": a}, (a,))


def complex_state() -> Problem:
    x0, a = leaf(3, dtype=torch.complex128), leaf(3, dtype=torch.complex128)
    b = leaf(3)
    inputs = {"x0": x0, "a": a, "b": b}
    return Problem(lambda t, x, a, b: 1j * a * x - b * x * x.abs() + t * x.conj(), x0, inputs, (a, b))


def mixed_dtypes() -> Problem:
    x0 = (leaf(3), leaf(3, dtype=torch.complex128))
    inputs = {"real": x0[0], "complex": x0[1]}
    return Problem(lambda t, x: (x[1].real - t * x[0], 1j * x[1] + x[0]), x0, inputs)


def independent_of_x() -> Problem:
    x0, a = leaf(3), leaf(3)
    return Problem(lambda t, x, a: a.sin() * torch.cos(t), x0, {"x0": x0, "a": a}, (a,))


def independent_of_t() -> Problem:
    x0, field = leaf(3, 2), mlp()
    return Problem(lambda t, x: field(x), x0, {"x0": x0, **named(field)})


def constant() -> Problem:
    x0, a = leaf(3), leaf(3)
    return Problem(lambda t, x, a: a, x0, {"x0": x0, "a": a}, (a,))


def differentiates_itself() -> Problem:
    """A Hamiltonian field, which uses autograd inside."""
    x0, energy = leaf(3, 2), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def f(t: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        return torch.stack([slope[:, 1], -slope[:, 0]], -1)

    return Problem(f, x0, {"x0": x0, "0.weight": energy[0].weight, "2.weight": energy[2].weight})


PROBLEMS = [
    one_arg,
    nested_and_mixed_args,
    the_same_arg_twice,
    x0_as_an_arg,
    parameter_as_an_arg_too,
    pytree_state,
    n_d_state,
    scalar_state,
    complex_state,
    mixed_dtypes,
    independent_of_x,
    independent_of_t,
    constant,
    differentiates_itself,
]


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
@pytest.mark.parametrize("reversed_time", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_of_every_output_to_every_time(assert_gradients, sensitivity, reversed_time, outputs):
    problem = nested_and_mixed_args()
    t_span = torch.tensor(FORWARD[::-1] if reversed_time else FORWARD, requires_grad=True)
    assert_gradients(
        lambda: problem.loss(dyn_sensitivity.odeint, t_span, OUTPUTS[outputs], sensitivity=sensitivity, **TIGHT),
        problem.inputs | {"t_span": t_span},
        tolerance=5e-7,
        plain_loss=lambda: problem.loss(dyn_numerics.odeint, t_span, OUTPUTS[outputs], **REFERENCE),
        times=torch.eye(4),
    )


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
@pytest.mark.parametrize("make", PROBLEMS, ids=lambda make: make.__name__)
def test_of_every_kind_of_state_and_field(assert_gradients, sensitivity, make):
    problem = make()
    t_span = torch.tensor([1.0, 0.6, 0.1], requires_grad=True)
    assert_gradients(
        lambda: problem.loss(dyn_sensitivity.odeint, t_span, [1, -1], sensitivity=sensitivity, **TIGHT),
        problem.inputs | {"t_span": t_span},
        tolerance=5e-7,
        plain_loss=lambda: problem.loss(dyn_numerics.odeint, t_span, [1, -1], **REFERENCE),
    )


@pytest.mark.parametrize("how", HELD)
def test_to_parameters_however_they_are_held(how):
    """What autograd finds anywhere, the adjoint has to find first."""
    problem = make_held(how)
    found = {}
    for sensitivity in ("autograd", "adjoint"):
        loss = problem.loss(dyn_sensitivity.odeint, FORWARD, [1, -1], sensitivity=sensitivity, **TIGHT)
        found[sensitivity] = torch.autograd.grad(loss, list(problem.inputs.values()))
    for exact, approximate in zip(*found.values(), strict=True):
        assert exact.abs().max() > 1e-3
        torch.testing.assert_close(approximate, exact, rtol=0, atol=2e-7)


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
def test_to_declared_params_leaf_and_not(assert_gradients, sensitivity):
    x0, a, b = leaf(3, 2), leaf(2, 2), leaf(2, 2)

    def loss(odeint: Callable[..., Any], **options: Any) -> Tensor:
        computed = b.exp()
        problem = Problem(lambda t, x: torch.tanh(x @ a) - t * x @ computed, x0, {})
        return problem.loss(odeint, FORWARD, [1, -1], **options)

    def solve(f: Any, *args: Any, **options: Any) -> Any:
        captured = dict(zip(f.__code__.co_freevars, (cell.cell_contents for cell in f.__closure__), strict=True))
        params = (captured["a"], captured["computed"])
        return dyn_sensitivity.odeint(f, *args, sensitivity=sensitivity, params=params, **options)

    assert_gradients(
        lambda: loss(solve, **TIGHT),
        {"x0": x0, "a": a, "b": b},
        tolerance=5e-7,
        plain_loss=lambda: loss(dyn_numerics.odeint, **REFERENCE),
    )


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
def test_through_what_was_computed_from_a_parameter_before(assert_gradients, sensitivity):
    """A captured tensor whose graph outlives the solve, and an argument computed from a parameter that `f` holds."""
    x0, field = leaf(3, 2), nn.Linear(2, 2)

    def loss(odeint: Callable[..., Any], **options: Any) -> Tensor:
        before = field.weight.exp()
        direction = field.weight / field.weight.norm()
        problem = Problem(lambda t, x, w: torch.tanh(field(x)) - x @ before + t * x @ w, x0, {}, (direction,))
        return problem.loss(odeint, FORWARD, [1, -1], **options)

    assert_gradients(
        lambda: loss(dyn_sensitivity.odeint, sensitivity=sensitivity, **TIGHT),
        {"x0": x0, **named(field)},
        tolerance=5e-7,
        plain_loss=lambda: loss(dyn_numerics.odeint, **REFERENCE),
    )


FIXED = {
    "rk4 on t_span": {"solver": "rk4"},
    "rk4 on steps": {"solver": "rk4", "step_size": 0.0175},
    "dopri5 with fixed steps": {"solver": "dopri5", "controller": dyn_numerics.FixedStep()},
    "dopri5 on steps": {"solver": "dopri5", "step_size": 0.0175},
}


@pytest.mark.parametrize("reversed_time", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("how", FIXED)
@pytest.mark.parametrize(("sensitivity", "tolerance"), [("autograd", 1e-10), ("adjoint", 2e-6)])
def test_with_fixed_steps(assert_gradients, sensitivity, tolerance, how, reversed_time):
    """Autograd is exact: it gives the derivative of the computed numbers. The adjoint is as good as the steps."""
    problem, options = nested_and_mixed_args(), FIXED[how]
    t_span = torch.linspace(0.3, 1.2, 4 if "step_size" in options else 46)
    t_span = (t_span.flip(0) if reversed_time else t_span).requires_grad_()
    outputs = [len(t_span) // 3, -1]
    assert_gradients(
        lambda: problem.loss(dyn_sensitivity.odeint, t_span, outputs, sensitivity=sensitivity, **options),
        problem.inputs | {"t_span": t_span},
        tolerance=tolerance,
        plain_loss=lambda: problem.loss(dyn_numerics.odeint, t_span, outputs, **options),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("sensitivity", dyn_sensitivity.ode.odeint.ALGORITHMS)
@pytest.mark.parametrize("mixed", [False, True])
def test_on_a_gpu_as_on_the_cpu(sensitivity: str, mixed: bool, stepping: str, device: str) -> None:
    def gradients(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        field = Field().to(device)
        x0 = torch.linspace(-1, 1, 6).reshape(3, 2).to(device).requires_grad_()
        t_span = torch.tensor(FORWARD, requires_grad=True)

        def f(t: Tensor, x: Tensor) -> Tensor:
            return field(t, x).to(x.dtype)

        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            solver = "reversible_heun" if sensitivity == "reversible" else "tsit5"
            options = {"solver": solver, "stepping": stepping, "sensitivity": sensitivity, "rtol": 1e-6, "atol": 1e-6}
            x = dyn_sensitivity.odeint(f, x0, t_span, **options).x
        return [g.cpu() for g in torch.autograd.grad(x.square().sum(), [x0, t_span, *field.parameters()])]

    tolerance = 5e-2 if mixed else 1e-6
    for gpu, cpu in zip(gradients(device), gradients("cpu"), strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=0, atol=tolerance * (1 + cpu.abs().max().item()))


@pytest.mark.parametrize("sensitivity", ["autograd", "adjoint"])
@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_the_times_that_come_back_have_their_gradient(sensitivity, kind):
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    span = t if kind == "tensor" else list(t)
    sol = dyn_sensitivity.odeint(
        lambda t, x: -x, torch.ones(1, dtype=torch.float64), span, rtol=1e-9, atol=1e-9, sensitivity=sensitivity
    )
    (gradient,) = torch.autograd.grad((sol.t[:, None] * sol.x).sum(), t)
    # d/dt1 sum t_i exp(t0 - t_i); the last is (1 - t) exp(-t) at 1
    e = torch.exp(-torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    expected = torch.stack([1 + 0.5 * e[1] + e[2], 0.5 * e[1], 0 * e[2]])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7)
