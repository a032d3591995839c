"""Linear maps by their products: values, adjoints, matrices, and how often a function is called for them."""

import pytest
import torch

from dyn_numerics import FunctionOperator, JacobianOperator, LinearOperator, MatrixOperator

D, C = torch.float64, torch.complex128
LEADS = [(), (3,), (2, 3)]


class Calls:
    def __init__(self, function):
        self.function = function
        self.n = 0

    def __call__(self, v):
        self.n += 1
        return self.function(v)


def matrices(lead, size, dtype, seed=0):
    return torch.randn(*lead, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def vectors(lead, size, dtype, seed=1):
    return torch.randn(*lead, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(found, expected, atol=1e-13):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def curved(x):
    return x * x.roll(1, -1) + x.exp() * x[..., :1]


def jacobian_of_curved(x):
    size = x.shape[-1]
    one = torch.eye(size, dtype=x.dtype)
    return (
        x.roll(1, -1).unsqueeze(-1) * one
        + x.unsqueeze(-1) * one.roll(1, 0)
        + (x.exp() * x[..., :1]).unsqueeze(-1) * one
        + x.exp().unsqueeze(-1) * one[0]
    )


def operators(lead, dtype):
    a, x = matrices(lead, 4, dtype), vectors(lead, 4, dtype)

    def product(v):
        return (a @ v.unsqueeze(-1)).squeeze(-1)

    def adjoint(v):
        return (a.mH @ v.unsqueeze(-1)).squeeze(-1)

    return [
        (MatrixOperator(a), a),
        (FunctionOperator(product, x), a),
        (FunctionOperator(product, x, adjoint=adjoint), a),
        (JacobianOperator(curved, x), jacobian_of_curved(x)),
    ]


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("dtype", [D, C])
@pytest.mark.parametrize("which", range(4))
def test_an_operator_is_its_matrix(which, dtype, lead):
    operator, a = operators(lead, dtype)[which]
    v = vectors(lead, 4, dtype, seed=2)
    assert (operator.lead, operator.size, operator.dtype, operator.device) == (lead, 4, dtype, a.device)
    close(operator(v), (a @ v.unsqueeze(-1)).squeeze(-1))
    close(operator.matrix(), a)
    close(operator.adjoint()(v), (a.mH @ v.unsqueeze(-1)).squeeze(-1))
    close(operator.adjoint().matrix(), a.mH)
    close(operator.adjoint().adjoint().matrix(), a)


def test_a_function_is_called_once_for_a_product_and_once_for_all_of_its_matrix():
    x = vectors((3,), 4, D)
    f = Calls(curved)
    jacobian = JacobianOperator(f, x)
    assert f.n == 0
    value, product = jacobian.value_and_product(x)
    assert f.n == 1
    close(value, curved(x))
    close(product, (jacobian_of_curved(x) @ x.unsqueeze(-1)).squeeze(-1))
    value, matrix = jacobian.value_and_matrix()
    assert f.n == 2
    assert value.shape == x.shape
    close(value, curved(x))
    close(matrix, jacobian_of_curved(x))


def test_an_adjoint_calls_its_function_once_however_many_its_products():
    x = vectors((3,), 4, D)
    f = Calls(curved)
    adjoint = JacobianOperator(f, x).adjoint()
    first = adjoint(x)
    adjoint.matrix()
    assert torch.equal(adjoint(x), first)
    assert f.n == 1
    close(adjoint.adjoint()(x), JacobianOperator(curved, x)(x))
    assert f.n == 2


def test_an_adjoint_that_is_given_is_used():
    x = vectors((3,), 4, D)
    adjoint = Calls(lambda v: 2 * v)
    assert torch.equal(FunctionOperator(lambda v: 2 * v, x, adjoint=adjoint).adjoint()(x), 2 * x)
    assert adjoint.n == 1


def test_products_work_without_grad_and_inside_of_transforms():
    x = vectors((3,), 4, D)
    expected = (jacobian_of_curved(x) @ x.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        close(JacobianOperator(curved, x)(x), expected)
        close(JacobianOperator(curved, x).adjoint().matrix(), jacobian_of_curved(x).mT)
    close(torch.func.vmap(lambda x: JacobianOperator(curved, x)(x))(x), expected)
    close(torch.func.vmap(lambda x: JacobianOperator(curved, x).adjoint().matrix())(x), jacobian_of_curved(x).mT)


def test_the_products_of_an_operator_are_differentiable():
    x = vectors((3,), 4, D).requires_grad_()
    v = vectors((3,), 4, D, seed=2)
    assert torch.autograd.gradcheck(lambda x: JacobianOperator(curved, x)(v), x)


def test_an_operator_of_ones_own_needs_its_products_only():
    class Scaled(LinearOperator):
        def __init__(self, like, factor):
            super().__init__(like)
            self.factor = factor

        def __call__(self, v):
            return self.factor * v

        def adjoint(self):
            return Scaled(self.units()[0], self.factor.conjugate())

    operator = Scaled(vectors((2,), 3, C), 2j)
    assert torch.equal(operator.matrix(), 2j * torch.eye(3, dtype=C).expand(2, 3, 3))
    assert torch.equal(operator.adjoint().matrix(), -2j * torch.eye(3, dtype=C).expand(2, 3, 3))
    assert repr(operator) == "Scaled(lead=[2], size=3, dtype=torch.complex128)"


def test_misuse():
    with pytest.raises(ValueError, match=r"matrix: got shape \[3, 4\], expected square matrices"):
        MatrixOperator(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"like: got a tensor of shape \[\], expected vectors"):
        FunctionOperator(lambda v: v, torch.ones(()))
    operator = FunctionOperator(lambda v: v.sum(-1, keepdim=True), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"function: got a product of shape \[2, 1\] .* expected \[2, 3\]"):
        operator(torch.ones(2, 3))
    operator = FunctionOperator(lambda v: v.double(), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"function: got .* in torch.float64, expected .* in torch.float32"):
        operator(torch.ones(2, 3))


@pytest.mark.parametrize("lead", LEADS)
def test_matrix_of_what_is_the_same_for_all_vectors(lead):
    x, constant = vectors(lead, 3, D), vectors(lead, 3, D, seed=2)
    zero = torch.zeros(*lead, 3, 3, dtype=D)
    value, matrix = JacobianOperator(lambda x: constant, x).value_and_matrix()
    assert torch.equal(value, constant)
    assert torch.equal(matrix, zero)
    assert torch.equal(FunctionOperator(lambda v: torch.zeros(*lead, 3, dtype=D), x).matrix(), zero)
