import torch

from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative

COEFFICIENTS = torch.tensor([[1.0, 0.0], [2.0, -1.0], [3.0, 4.0]], dtype=torch.float64)  # 1 + 2 x + 3 x^2, -x + 4 x^2
THETA = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


def test_value_and_derivative_by_hand():
    assert evaluate(COEFFICIENTS, THETA).tolist() == [[1, 0], [2.75, 0.5], [17, 14]]
    assert evaluate_derivative(COEFFICIENTS, THETA).tolist() == [[2, -1], [5, 3], [14, 15]]


def test_a_batch_of_polynomials():
    both = torch.stack([COEFFICIENTS, -COEFFICIENTS])
    found = evaluate(both, torch.stack([THETA, THETA + 1], dim=1))
    torch.testing.assert_close(found[:, 0], evaluate(COEFFICIENTS, THETA))
    torch.testing.assert_close(found[:, 1], -evaluate(COEFFICIENTS, THETA + 1))


def test_complex_coefficients_take_real_points():
    found = evaluate(COEFFICIENTS * 1j, THETA)
    torch.testing.assert_close(found, evaluate(COEFFICIENTS, THETA) * 1j)


def test_gradient_to_the_points_is_the_derivative():
    theta = THETA.clone().requires_grad_()
    evaluate(COEFFICIENTS, theta).sum().backward()
    torch.testing.assert_close(theta.grad, evaluate_derivative(COEFFICIENTS, THETA).sum(-1))
