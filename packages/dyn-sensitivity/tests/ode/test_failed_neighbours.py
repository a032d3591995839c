"""Gradients beside samples that failed: in time, by their own arguments, at their start, or when they are put back there."""

from __future__ import annotations

from math import nan

import pytest
import torch

from dyn_numerics import PerSample
from dyn_numerics.loop import is_supported
from dyn_sensitivity import odeint

pytestmark = pytest.mark.timeout(300)

D = torch.float64
SENSITIVITIES = ["autograd", "adjoint"]
EAGER = [*SENSITIVITIES, "interpolated_adjoint", "gauss"]

each_way = pytest.mark.parametrize(
    ("sensitivity", "mode"),
    [(s, "eager") for s in EAGER]
    + [
        pytest.param(
            s,
            "compiled",
            marks=[
                pytest.mark.skipif(not is_supported(), reason="this torch compiles no solve"),
                *([pytest.mark.slow] if s == "adjoint" else []),
            ],
        )
        for s in SENSITIVITIES
    ],
)


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


def gradients(f, x0, own, sensitivity, mode):
    """Of what was reached, to the initial states and to what the samples share."""

    def solve(x0, shared):
        options = {"sensitivity": sensitivity, "stepping": "per_sample", "throw": False, "rtol": 1e-8, "atol": 1e-8}
        return odeint(f, x0, torch.tensor([0.0, 0.5, 1.0], dtype=D), args=(shared, PerSample(own)), **options).x

    x0, shared = torch.tensor(x0, dtype=D, requires_grad=True), torch.tensor([0.8], dtype=D, requires_grad=True)
    run = torch.compile(solve, fullgraph=True, backend="aot_eager") if mode == "compiled" else solve
    x = run(x0, shared)
    return torch.autograd.grad(torch.where(x.isnan(), 0, x).square().sum(), [x0, shared], allow_unused=True)


FIELDS = {
    "the time": (lambda t, x, s, c: s * torch.sqrt(c - t) * x, [[1.0], [1.0]], [[0.7], [2.0]]),
    "its own argument": (lambda t, x, s, c: s * c * x, [[1.0], [1.0]], [[nan], [2.0]]),
    "leaving a band": (lambda t, x, s, c: s * torch.where((x > 5) | (x < c), nan, x), [[1.0], [3.0]], [[0.9], [2.9]]),
    "its start": (lambda t, x, s, c: s * torch.where(x > c, nan, x), [[1.0], [9.0]], [[8.0], [8.0]]),
}


@pytest.mark.parametrize("case", FIELDS)
@each_way
def test_those_of_the_others_are_what_they_are_alone(case, sensitivity, mode):
    """A loss of what both reached is one of the first alone and of the second alone."""
    f, x0, own = FIELDS[case]
    own = torch.tensor(own, dtype=D)
    of_states, of_shared = gradients(f, x0, own, sensitivity, mode)
    alone = [gradients(f, x0[i : i + 1], own[i : i + 1], "autograd", "eager") for i in range(2)]
    healthy = [i for i in range(2) if alone[i][1] is not None]  # the others got nowhere
    assert healthy
    for i in healthy:
        torch.testing.assert_close(of_states[i], alone[i][0][0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(of_shared, sum(alone[i][1] for i in healthy), rtol=1e-6, atol=1e-9)


def test_what_is_lent_has_no_gradient():
    """Or the lender's would be zero times what is not finite of the borrower."""
    x0 = torch.ones(2, 1, dtype=D, requires_grad=True)
    own = torch.tensor([[nan], [2.0]], dtype=D)
    sol = odeint(
        lambda t, x, c: c * x, x0, [0.0, 1.0], args=(own,), stepping="per_sample", throw=False, rtol=1e-9, atol=1e-9
    )
    (gradient,) = torch.autograd.grad(sol.x[-1, 1].sum(), x0)
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [2.0]], dtype=D).exp() - torch.tensor([[1.0], [0.0]]))
