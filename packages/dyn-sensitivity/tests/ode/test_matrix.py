"""Every algorithm, in every direction, for every kind of loss and state, to everything that may want a gradient.

Exact algorithms take a few fixed steps, and their gradients are those of the numbers that come out, which differences of
the same solve give. The others converge with the tolerance, and are compared with the solution itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dyn_numerics import ReversibleRungeKutta
from dyn_sensitivity import odeint
from dyn_sensitivity.ode.odeint import ALGORITHMS, algorithm

SPANS = {"forward": [0.3, 0.62, 1.2], "reversed": [1.2, 0.62, 0.3]}
LOSSES = ["final", "intermediate", "integral"]
WANTED = ["x0", "theta", "args", "t_span"]

ACCURATE = {"solver": "dopri8", "step_size": 0.1}  # 1e-12 for these fields
TIGHT = {"solver": "dopri8", "rtol": 1e-9, "atol": 1e-9}


def steps_of(name: str) -> tuple[dict[str, Any], dict[str, Any], float]:
    """How an algorithm solves, what its gradient is that of, and how near it has to come."""
    if not algorithm(name).exact:
        return TIGHT, ACCURATE, 1e-7
    solver = ReversibleRungeKutta("heun") if name == "reversible" else "rk4"
    few = {"solver": solver, "step_size": 0.26}
    return few, few, 1e-9


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (0.5 * torch.randn(shape, dtype=dtype)).requires_grad_()


class Field(nn.Module):
    """A field of one kind of state, and a loss on it, which share nothing but the arguments.

    Attributes:
        x0: Initial state.
        args: Further arguments of both.
        cost: The loss's own parameter.
        nothing: What is frozen.
        zero: What nobody uses.
    """

    x0: Any
    args: tuple[Any, ...]

    def __init__(self) -> None:
        super().__init__()
        self.cost = nn.Parameter(leaf(2))
        self.nothing: list[Tensor] = []
        self.zero: list[Tensor] = []

    def density(self, x: Any) -> Tensor:
        """Something real of a state to integrate."""
        leaves = [value.real.sin() + 0.5 * value.abs().square() for value in tree_leaves(x)]
        return torch.stack([value.mean() for value in leaves]).sum()

    def loss(self, t: Tensor, x: Any, *args: Any) -> Tensor:
        a = torch.stack([value.abs().square().sum() for value in args]).sum()
        return self.cost[0] * torch.cos(t) * self.density(x) + self.cost[1] * a * t

    def inputs(self, t_span: Tensor) -> dict[str, list[Tensor]]:
        """What wants gradients, by where it comes from."""
        args = [value for value in tree_leaves(self.args) if isinstance(value, Tensor) and value.requires_grad]
        theta = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return {"x0": tree_leaves(self.x0), "theta": theta, "args": args, "t_span": [t_span]}


class Frozen(Field):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)
        self.first.weight.requires_grad_(False)
        constant = torch.tensor([0.3, -0.2])
        self.x0, self.args = leaf(2), (leaf(2), constant)
        self.nothing = [self.first.weight, constant]

    def forward(self, t: Tensor, x: Tensor, a: Tensor, constant: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x))) + a * torch.sin(3 * t) + constant


class Unused(Field):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)
        self.x0, self.args = leaf(2), (leaf(2), leaf(3), "sin", None)
        self.zero = [*self.unused.parameters(), self.args[1]]

    def forward(self, t: Tensor, x: Tensor, a: Tensor, b: Tensor, name: str, nothing: None) -> Tensor:
        return getattr(torch, name)(self.used(x)) - a * t * x

    def loss(self, t: Tensor, x: Tensor, a: Tensor, *others: Any) -> Tensor:
        return super().loss(t, x, a)


class ManyDimensional(Field):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(leaf(2, 2))
        self.x0, self.args = leaf(2, 1, 2), (leaf(2, 1, 1),)

    def forward(self, t: Tensor, x: Tensor, a: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight) * a - torch.cos(2 * t) * x


class Pytree(Field):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(leaf(2))
        self.x0 = {"q": leaf(3), "p": (leaf(2), leaf())}
        self.args = ({"scale": leaf(3), "name": "sin"}, [leaf(), 3])

    def forward(self, t: Tensor, x: dict[str, Any], a: dict[str, Any], b: list[Any]) -> dict[str, Any]:
        p, s = x["p"]
        q = getattr(torch, a["name"])(x["q"]) * a["scale"] + s
        return {"q": q, "p": (self.rate * p * t, x["q"].mean() * b[0] - torch.tanh(s) * b[1])}

    def loss(self, t: Tensor, x: Any, a: dict[str, Any], b: list[Any]) -> Tensor:
        return super().loss(t, x, a["scale"], b[0])


class Complex(Field):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(leaf(2, dtype=torch.complex128))
        self.x0, self.args = leaf(2, dtype=torch.complex128), (leaf(2, dtype=torch.complex128), leaf(2))

    def forward(self, t: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return 1j * self.rate * x - 0.3 * b * x * x.abs() + a * t * x.conj()


KINDS = {"frozen": Frozen, "unused": Unused, "N-d": ManyDimensional, "pytree": Pytree, "complex": Complex}


class Case:
    """One kind of state in one direction, its gradients and their references, each computed once."""

    def __init__(self, kind: str, direction: str) -> None:
        torch.manual_seed(0)
        self.field = KINDS[kind]()
        self.t_span = torch.tensor(SPANS[direction], requires_grad=True)
        self.inputs = self.field.inputs(self.t_span)
        self.along = {name: [torch.randn_like(p) for p in tensors] for name, tensors in self.inputs.items()}
        self._gradients: dict[tuple[str, str], dict[str, list[Tensor]]] = {}
        self._slopes: dict[tuple[str, str, str], float] = {}

    def value(self, loss: str, **options: Any) -> Tensor:
        field = self.field
        if loss == "integral":
            options["integral_loss"] = field.loss
        solution = odeint(field, field.x0, self.t_span, args=field.args, **options)
        if loss == "integral":
            return solution.integral[-1] + 0.4 * solution.integral[1]
        total = torch.zeros(())
        for leaf in tree_leaves(solution.x):
            kept = leaf[-1 if loss == "final" else 1]
            weight = torch.linspace(0.5, 1.5, kept.numel()).reshape(kept.shape)
            total = total + (weight * (kept.real.sin() + 0.5 * kept.abs().square())).sum()
        return total

    def gradients(self, name: str, loss: str) -> dict[str, list[Tensor]]:
        """What an algorithm finds, by where it belongs."""
        if (name, loss) not in self._gradients:
            tensors = [p for group in self.inputs.values() for p in group]
            options, _, _ = steps_of(name)
            value = self.value(loss, sensitivity=name, **options)
            found = iter(torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True))
            self._gradients[name, loss] = {key: [next(found) for _ in group] for key, group in self.inputs.items()}
        return self._gradients[name, loss]

    def slope(self, name: str, loss: str, wanted: str, slope_along: Callable[..., float]) -> float:
        """The derivative along a direction of everything that is wanted."""
        _, reference, _ = steps_of(name)
        key = repr(reference), loss, wanted
        if key not in self._slopes:
            pair = self.inputs[wanted], self.along[wanted]
            self._slopes[key] = slope_along(lambda: self.value(loss, **reference), *pair, 3e-4)
        return self._slopes[key]


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, str], Case]:
    return {}


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("direction", SPANS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient(slope_along, cases, name, direction, loss, kind, wanted):
    if (kind, direction) not in cases:
        cases[kind, direction] = Case(kind, direction)
    case = cases[kind, direction]
    *_, tolerance = steps_of(name)
    found, along = case.gradients(name, loss)[wanted], case.along[wanted]
    for gradient, tensor in zip(found, case.inputs[wanted], strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
    expected = case.slope(name, loss, wanted, slope_along)
    got = sum((gradient.conj() * v).sum().real.item() for gradient, v in zip(found, along, strict=True))
    assert abs(expected) > 1e-5
    assert abs(got - expected) <= tolerance * (1 + abs(expected))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_frozen_tensors_get_nothing_and_unused_ones_zeros_or_nothing(name):
    options, _, _ = steps_of(name)
    for make in (Frozen, Unused):
        field = make()
        odeint(field, field.x0, SPANS["forward"], args=field.args, sensitivity=name, **options).x[-1].sum().backward()
        assert field.x0.grad.abs().max() > 0
        assert all(tensor.grad is None for tensor in field.nothing)
        assert all(tensor.grad is None or not tensor.grad.any() for tensor in field.zero)
