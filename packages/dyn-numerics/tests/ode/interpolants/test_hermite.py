import pytest
import torch

from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative


@pytest.mark.parametrize(("t0", "t1"), [(1.0, 3.0), (3.0, 1.0), (-0.1, 0.0)])
def test_reproduces_cubics(t0, t1):
    cubic = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-1.0, 1.0], [0.25, -2.0]], dtype=torch.float64)  # in t, not theta

    def value(t):
        return evaluate(cubic, torch.as_tensor(t, dtype=torch.float64).reshape(-1))

    def slope(t):
        return evaluate_derivative(cubic, torch.as_tensor(t, dtype=torch.float64).reshape(-1))

    found = cubic_hermite(value(t0)[0], value(t1)[0], slope(t0)[0], slope(t1)[0], t1 - t0)
    theta = torch.linspace(0, 1, 7, dtype=torch.float64)
    t = t0 + theta * (t1 - t0)
    torch.testing.assert_close(evaluate(found, theta), value(t), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(evaluate_derivative(found, theta) / (t1 - t0), slope(t), rtol=1e-13, atol=1e-13)
