"""The backward solve calls `f` when its surroundings may have changed: it then computes as before, or refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from dyn_numerics import MaxStepsError
from dyn_sensitivity import Backsolve, odeint

T_SPAN = [0.0, 1.0]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def solve(f, x0=None, **options):
    x0 = torch.linspace(0.1, 0.9, 4).reshape(2, 2) if x0 is None else x0
    return odeint(f, x0, T_SPAN, **{"sensitivity": "adjoint", **TIGHT, **options}).x[-1]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.scale = torch.ones(2)

    def forward(self, t, x):
        return torch.tanh(self.net(x)) * self.scale


# --- a field that is another one by then ---


def loop_over_layers():
    x = torch.ones(2, 2)
    for layer in (nn.Linear(2, 2), nn.Linear(2, 2)):
        x = solve(lambda t, x: torch.tanh(layer(x)), x)  # noqa: B023
    return x


def loop_over_constants():
    x0, total = torch.ones(2, requires_grad=True), 0
    for a in (1.0, 2.0):
        total = total + solve(lambda t, x: -a * x, x0)  # noqa: B023
    return total


def swapped_weights():
    field = Scaled()
    fast = {name: (2 * p).detach().requires_grad_() for name, p in field.named_parameters()}
    solution = functional_call(Solve(field), {f"field.{name}": p for name, p in fast.items()}, (torch.ones(2, 2),))
    return solution


class Solve(nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, x0):
        return solve(self.field, x0)


def new_parameter():
    field = Scaled()
    x = solve(field)
    field.net.weight = nn.Parameter(torch.randn(2, 2))
    return x


def new_condition():
    field, total = Scaled(), 0
    for scale in (torch.ones(2, requires_grad=True), torch.full((2,), 2.0, requires_grad=True)):
        field.scale = scale
        total = total + solve(field, params=(scale,))
    return total


def new_constant():
    field, total = Scaled(), 0
    for scale in (torch.ones(2), torch.full((2,), 2.0)):
        field.scale = scale
        total = total + solve(field)
    return total


def constant_written_to():
    scale = torch.ones(2)
    x = solve(lambda t, x: -scale * x, torch.ones(2, requires_grad=True))
    scale.mul_(2)
    return x


def another_mode():
    field = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    x = solve(lambda t, x: field(x))
    field.eval()
    return x


def frozen_since():
    field = Scaled()
    x = solve(field)
    field.requires_grad_(False)
    return x


CHANGES = {
    loop_over_layers: "has another value than in the forward solve at t = 0",
    loop_over_constants: "has another value than in the forward solve at t = 0",
    swapped_weights: "has another value than in the forward solve at t = 0",
    new_parameter: "has another value than in the forward solve at t = 0",
    new_condition: "has another value than in the forward solve at t = 0",
    new_constant: "has another value than in the forward solve at t = 0",
    constant_written_to: "has another value than in the forward solve at t = 0",
    another_mode: "has another value than in the forward solve at t = 0",
    frozen_since: "stopped requiring gradients",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_field_that_changed_is_refused(change):
    x = change()
    with pytest.raises(ValueError, match=f"f: .*{CHANGES[change]}"):
        x.sum().backward()


def test_what_a_loop_binds_gets_its_gradient():
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    found = {}
    for sensitivity in ("autograd", "adjoint"):
        x = torch.ones(2, 2)
        for layer in layers:
            x = solve(lambda t, x, layer=layer: torch.tanh(layer(x)), x, sensitivity=sensitivity)
        found[sensitivity] = torch.autograd.grad(x.sum(), [layer.weight for layer in layers])
    torch.testing.assert_close(found["adjoint"], found["autograd"], rtol=1e-6, atol=1e-7)


def test_a_tensor_that_the_first_evaluation_did_not_need():
    w = torch.tensor(0.5, requires_grad=True)
    x = solve(lambda t, x: -x if t < 0.5 else -w * x, torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="f: captures w,") as caught:
        x.sum().backward()
    assert any("backward solve" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("remembered", ["arg", "state"])
def test_a_field_that_remembers_what_it_computed_from_its_arguments(remembered):
    """The gradient would end in the first evaluation."""
    memory = []

    def f(t, x, a):
        if not memory:
            memory.append(a.exp() if remembered == "arg" else x.sum())
        return -memory[0] * x

    x = solve(f, torch.ones(2, requires_grad=True), args=(torch.tensor(0.3, requires_grad=True),))
    with pytest.raises(ValueError, match="f: captures"):
        x.sum().backward()


def test_a_random_field_is_not_taken_for_one_that_changed():
    field = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    options = {"solver": "rk4", "step_size": 0.1}
    odeint(lambda t, x: field(x), torch.ones(3, 2), T_SPAN, sensitivity="adjoint", **options).x.sum().backward()
    assert field[0].weight.grad.isfinite().all()


# --- what must not notice that there is a backward solve ---


def test_hooks_see_the_whole_gradient_once():
    field, seen = Scaled(), {}
    w = torch.ones(2, requires_grad=True).exp()
    w.retain_grad()
    loss = solve(lambda t, x: field(t, x) * w, params=(w,)).sum()
    plain = torch.autograd.grad(loss, [field.net.weight, w], retain_graph=True)
    w.grad = None
    for name, tensor in {"weight": field.net.weight, "w": w}.items():
        tensor.register_hook(lambda g, name=name: seen.setdefault(name, []).append(g) or 2 * g)
    loss.backward()
    torch.testing.assert_close(seen, {"weight": [plain[0]], "w": [plain[1]]})
    torch.testing.assert_close(field.net.weight.grad, 2 * plain[0])
    torch.testing.assert_close(w.grad, 2 * plain[1])


def test_hooks_survive_a_backward_solve_that_fails():
    field = nn.Linear(2, 2)
    field.weight.register_hook(lambda g: 3 * g)
    x = solve(lambda t, x: field(x), sensitivity=Backsolve(rtol=1e-12, atol=1e-12), max_steps=5, rtol=1e-2, atol=1e-2)
    with pytest.raises(MaxStepsError):
        x.sum().backward()
    field.weight.grad = None
    field(torch.ones(2)).sum().backward()
    assert torch.equal(field.weight.grad, torch.full((2, 2), 3.0))


def test_times_in_a_sequence():
    end, x0 = torch.tensor(0.7, requires_grad=True), torch.ones(2, dtype=torch.float32)
    sol = odeint(lambda t, x: -x, x0, [0.0, end], sensitivity="adjoint", rtol=1e-6, atol=1e-6)
    assert sol.t.dtype == torch.float32  # as without gradients
    sol.x[-1].sum().backward()
    assert end.grad.item() == pytest.approx(-2 * torch.tensor(-0.7).exp().item(), rel=1e-5)


def test_a_scripted_module():
    field = nn.Linear(2, 2)
    scripted = torch.jit.script(field)
    expected = torch.autograd.grad(solve(lambda t, x: field(x)).sum(), field.weight)[0]
    solve(lambda t, x: scripted(x)).sum().backward()
    torch.testing.assert_close(scripted.weight.grad, expected)


@pytest.mark.parametrize("backward_under_autocast", [False, True])
def test_evaluates_under_the_autocast_of_the_forward_solve(backward_under_autocast):
    field, seen = nn.Linear(2, 2, dtype=torch.float32), []

    def f(t, x):
        slope = field(x)
        seen.append((torch.is_grad_enabled(), slope.dtype))
        return slope.float()

    with torch.autocast("cpu", torch.bfloat16):
        x = solve(f, torch.ones(3, 2, dtype=torch.float32), rtol=1e-2, atol=1e-2)
        assert x.dtype == torch.float32
        if backward_under_autocast:
            x.sum().backward()
    if not backward_under_autocast:
        x.sum().backward()
    assert len(seen) > 10
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    assert field.weight.grad.dtype == torch.float32


def test_evaluates_without_autocast_if_the_forward_solve_did():
    field, seen = nn.Linear(2, 2, dtype=torch.float32), set()

    def f(t, x):
        seen.add(field(x).dtype)
        return field(x)

    x = solve(f, torch.ones(3, 2, dtype=torch.float32), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        x.sum().backward()
    assert seen == {torch.float32}


def test_takes_no_gradient_from_what_comes_after_under_autocast():
    field = nn.Linear(2, 2, dtype=torch.float32)
    x0 = torch.ones(3, 2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        x = solve(lambda t, x: field(x).float(), x0, rtol=1e-2, atol=1e-2)
        after = field(x0)
    (gradient,) = torch.autograd.grad(after.sum(), field.weight, retain_graph=True)
    assert torch.equal(gradient, torch.full((2, 2), 3.0, dtype=torch.float32))
    assert torch.autograd.grad(x.sum(), field.weight)[0].abs().max() > 0.1
