import pytest
import torch

from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative
from dyn_numerics.ode.interpolants.quadratic import quadratic


@pytest.mark.parametrize(("t0", "t1"), [(1.0, 3.0), (3.0, 1.0), (-0.1, 0.0)])
def test_reproduces_quadratics(t0, t1):
    theta = torch.linspace(0, 1, 7, dtype=torch.float64)
    t = (t0 + theta * (t1 - t0)).unsqueeze(-1)
    of_t = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-1.0, 1.0]], dtype=torch.float64)  # in t, not theta
    value, slope = of_t[0] + of_t[1] * t + of_t[2] * t**2, of_t[1] + 2 * of_t[2] * t
    found = quadratic(value[0], slope[0], slope[-1], t1 - t0)
    torch.testing.assert_close(evaluate(found, theta), value, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(evaluate_derivative(found, theta) / (t1 - t0), slope, rtol=1e-13, atol=1e-13)
