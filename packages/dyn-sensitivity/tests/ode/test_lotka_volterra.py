"""Gradients of a nonlinear oscillation against 34-digit ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dyn_sensitivity import odeint

ALGORITHMS = ["autograd", "adjoint", "interpolated_adjoint", "gauss"]

# 34-digit extrapolation, gradients by forward sensitivities: x(10) of x1' = a x1 - b x1 x2, x2' = -c x2 + d x1 x2
# from x(0) = (1, 1) at a, b, c, d = 1.5, 1, 3, 1.
X_FINAL = [1.0263447675750894, 0.9096910781360417]
GRADIENTS = {
    "x0_1": [1.9659960547281692, -2.743979155920181],
    "x0_2": [0.1885687770780593, 0.21171348914668314],
    "a": [2.160557523562618, -6.256770517220816],
    "b": [0.1885687770780593, -0.6979775889893585],
    "c": [0.5631827941681977, -1.709017680597935],
    "d": [0.9396512871530798, -2.743979155920181],
}


def lotka_volterra(t, x, p):
    a, b, c, d = p
    prey, predators = x
    return torch.stack([a * prey - b * prey * predators, -c * predators + d * prey * predators])


@pytest.mark.parametrize(
    ("sensitivity", "solver", "tolerance"),
    [
        *((name, "tsit5", 1e-10) for name in (*ALGORITHMS, "checkpoint", "forward")),
        ("reversible", "alf", 1e-4),  # of order 2; the two states of a ReversibleRungeKutta part where solutions decay
    ],
)
def test_gradients(sensitivity, solver, tolerance):
    """Solutions and gradients are at most a hundred tolerances away."""
    x0 = torch.tensor([1.0, 1.0], requires_grad=True)
    p = torch.tensor([1.5, 1.0, 3.0, 1.0], requires_grad=True)
    options = {"sensitivity": sensitivity, "solver": solver, "rtol": tolerance, "atol": tolerance}
    x = odeint(lotka_volterra, x0, [0, 10], args=(p,), **options).x[-1]
    rows = [torch.cat(torch.autograd.grad(component, [x0, p], retain_graph=True)) for component in x]
    torch.testing.assert_close(x.detach(), torch.tensor(X_FINAL), rtol=0, atol=100 * tolerance)
    torch.testing.assert_close(
        torch.stack(rows, 1), torch.tensor(list(GRADIENTS.values())), rtol=0, atol=100 * tolerance
    )


@pytest.mark.parametrize("sensitivity", ALGORITHMS)
def test_gradients_converge_with_the_tolerance(sensitivity):
    expected = torch.tensor(list(GRADIENTS.values()))[:, 0]
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        x0 = torch.tensor([1.0, 1.0], requires_grad=True)
        p = torch.tensor([1.5, 1.0, 3.0, 1.0], requires_grad=True)
        x = odeint(lotka_volterra, x0, [0, 10], args=(p,), sensitivity=sensitivity, rtol=tolerance, atol=tolerance).x
        found = torch.cat(torch.autograd.grad(x[-1, 0], [x0, p]))
        errors.append((found - expected).abs().max().item())
    assert errors[0] > 1e-4
    assert all(later < earlier / 20 for earlier, later in pairwise(errors)), errors
