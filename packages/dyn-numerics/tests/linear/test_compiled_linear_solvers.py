"""`torch.compile(fullgraph=True)`: a solve is one program, which computes what the eager one does."""

import pytest
import torch

from dyn_numerics import GMRES, BiCGStab, ConjugateGradient, DenseLU, JacobianOperator, MatrixOperator
from dyn_numerics.loop import is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")

D = torch.float64


def field(x):
    return 3 * x + x.sin() + x.sum(-1, keepdim=True)


def check_alike(found, expected):
    for name in ("converged", "breakdown", "n_steps"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert isinstance(expected.n_products, int)
    assert found.n_products.dtype == torch.int64
    assert found.n_products.item() == expected.n_products
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("kind", [GMRES, ConjugateGradient, BiCGStab])
def test_iterative_solvers(kind, random):
    x, b = random(5, 8), random(5, 8, seed=1)
    b[3] = torch.nan
    rtol = torch.tensor([1e-3, 1e-6, 1e-10, 1e-6, 1e-9], dtype=D)

    def solve(x, b, rtol):
        return kind().solve(JacobianOperator(field, x), b, rtol=rtol)

    with torch.no_grad():
        check_alike(torch.compile(solve, fullgraph=True)(x, b, rtol), solve(x, b, rtol))


def test_dense_lu(random):
    a, b = random(6, 4, 4), random(6, 4, seed=1)
    a[2, 0] = 0

    def solve(a, b):
        return DenseLU().solve(MatrixOperator(a), b)

    found = torch.compile(solve, fullgraph=True)(a, b)
    check_alike(found, solve(a, b))
    assert found.breakdown.tolist() == [False, False, True, False, False, False]


def test_an_adjoint_system(random):
    x, b = random(3, 4), random(3, 4, seed=1)

    def solve(x, b):
        return GMRES(rtol=1e-10).solve(JacobianOperator(lambda x: field(x) + x * x.roll(1, -1), x).adjoint(), b)

    with torch.no_grad():
        found = torch.compile(solve, fullgraph=True, backend="aot_eager")(x, b)
    torch.testing.assert_close(found.x, solve(x, b).x, rtol=0, atol=1e-10)
