"""What all linear solvers promise: solutions, honest residuals, samples that do not notice each other, counts."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dyn_numerics import (
    GMRES,
    BiCGStab,
    ConjugateGradient,
    DenseLU,
    FunctionOperator,
    JacobianOperator,
    MatrixOperator,
)

D, C = torch.float64, torch.complex128
EPS = torch.finfo(D).eps
TOLERANCES = {D: 1e-12, C: 1e-12, torch.float32: 2e-6, torch.complex64: 2e-6}
ITERATIVE = [GMRES, ConjugateGradient, BiCGStab]
ids = {"ids": lambda value: getattr(value, "__name__", str(value))}


def solver(kind, **options):
    return DenseLU() if kind is DenseLU else kind(**options)


def definite(random, *lead, size=6, dtype=D, seed=0):
    """Hermitian, positive definite, with condition numbers of about 10."""
    a = random(*lead, size, size, dtype=dtype, seed=seed) / size**0.5
    return a @ a.mH + torch.eye(size, dtype=dtype)


def residual(a, x, b):
    return torch.linalg.vector_norm(b - (a @ x.unsqueeze(-1)).squeeze(-1), dim=-1)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", list(TOLERANCES), **ids)
@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
def test_systems_are_solved(kind, dtype, lead, random, counted_operator):
    a, b = definite(random, *lead, dtype=dtype), random(*lead, 6, dtype=dtype, seed=1)
    rtol = TOLERANCES[dtype]
    operator = counted_operator(a)
    found = solver(kind, rtol=rtol).solve(operator, b)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=10 * rtol)
    assert found.converged.all()
    assert not found.breakdown.any()
    assert found.x.dtype == dtype
    assert found.residual.shape == found.converged.shape == found.n_steps.shape == lead
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.residual, residual(a, found.x, b), rtol=1e-2, atol=20 * eps)
    assert (found.residual <= rtol * torch.linalg.vector_norm(b, dim=-1)).all()
    assert found.n_products == operator.calls


@pytest.mark.parametrize("kind", [GMRES, BiCGStab, DenseLU], **ids)
@pytest.mark.parametrize("dtype", [D, C], **ids)
def test_matrices_need_not_be_symmetric(kind, dtype, random):
    a = 3 * torch.eye(12, dtype=dtype) + random(5, 12, 12, dtype=dtype) / 3
    b = random(5, 12, dtype=dtype, seed=1)
    for operator, matrix in ((MatrixOperator(a), a), (MatrixOperator(a).adjoint(), a.mH)):
        found = solver(kind, rtol=1e-12).solve(operator, b)
        torch.testing.assert_close(found.x, torch.linalg.solve(matrix, b), rtol=0, atol=1e-11)


@pytest.mark.parametrize("decades", [0, 2, 4, 8])
@pytest.mark.parametrize("kind", [ConjugateGradient, GMRES, DenseLU], **ids)
def test_condition_numbers(kind, decades, random, with_eigenvalues):
    a = with_eigenvalues(torch.logspace(-decades, 0, 20, dtype=D), 3)
    exact = random(3, 20, seed=1)
    b = (a @ exact.unsqueeze(-1)).squeeze(-1)
    found = solver(kind, rtol=1e-10).solve(MatrixOperator(a), b)
    assert found.converged.all()
    # The error may be larger than the residual by the condition number, and rounding of the matrix by as much.
    error = torch.linalg.vector_norm(found.x - exact, dim=-1)
    limit = 10**decades * (found.residual + 100 * EPS)
    assert (error <= 10 * limit).all()


@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
def test_a_single_unknown(kind):
    found = solver(kind, rtol=1e-12).solve(
        MatrixOperator(torch.tensor([[[4.0]], [[0.5]]])), torch.tensor([[2.0], [2.0]]), rtol=1e-6
    )
    assert torch.equal(found.x, torch.tensor([[0.5], [4.0]]))
    assert found.n_steps.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_zeros_are_solved_by_zeros_without_a_product(kind, random, counted_operator):
    operator = counted_operator(definite(random, 2))
    found = kind().solve(operator, torch.zeros(2, 6, dtype=D))
    assert torch.equal(found.x, torch.zeros(2, 6, dtype=D))
    assert found.converged.all()
    assert found.n_products == operator.calls == 0
    beside = kind().solve(
        operator, torch.stack([torch.zeros(6, dtype=D), torch.ones(6, dtype=D)]), x0=torch.ones(2, 6, dtype=D)
    )
    assert torch.equal(beside.x[0], torch.zeros(6, dtype=D))
    assert beside.n_steps[0] == 0
    assert beside.converged.all()


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_start_that_solves_costs_one_product_and_stays(kind, random, counted_operator):
    a = definite(random, 2)
    x = random(2, 6, seed=1)
    operator = counted_operator(a)
    found = kind(rtol=1e-10).solve(operator, (a @ x.unsqueeze(-1)).squeeze(-1), x0=x)
    torch.testing.assert_close(found.x, x, rtol=4 * EPS, atol=0)
    assert found.n_products == operator.calls == 1
    assert found.n_steps.tolist() == [0, 0]


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_start_nearby_takes_fewer_steps_to_the_same_solution(kind, random):
    a, b = definite(random, 4, size=20), random(4, 20, seed=1)
    exact = torch.linalg.solve(a, b)
    method = kind(rtol=1e-8)
    cold = method.solve(MatrixOperator(a), b)
    warm = method.solve(MatrixOperator(a), b, x0=exact + 1e-5 * random(4, 20, seed=2))
    torch.testing.assert_close(warm.x, exact, rtol=0, atol=1e-6)
    assert (warm.n_steps < cold.n_steps).all()


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_the_tolerance_may_be_each_samples_own(kind, random):
    a, b = definite(random, size=20).expand(3, 20, 20), random(20, seed=1).expand(3, 20)
    rtol = torch.tensor([1e-1, 1e-4, 1e-9], dtype=D)
    found = kind().solve(MatrixOperator(a), b, rtol=rtol)
    assert found.converged.all()
    assert (found.n_steps.diff() > 0).all()
    assert (found.residual <= rtol * torch.linalg.vector_norm(b, dim=-1)).all()
    for i in range(3):
        alone = kind(rtol=rtol[i].item()).solve(MatrixOperator(a[:1]), b[:1])
        torch.testing.assert_close(alone.x[0], found.x[i], rtol=0, atol=1e-12)
        assert alone.n_steps[0] == found.n_steps[i]


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_the_scale_of_a_system_does_not_matter(kind, scale, random):
    a, b = definite(random), random(6, seed=1)
    found = kind(rtol=1e-10).solve(MatrixOperator(a), b * scale)
    expected = kind(rtol=1e-10).solve(MatrixOperator(a), b)
    assert found.converged
    torch.testing.assert_close(found.x / scale, expected.x, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_samples_do_not_notice_each_other(kind, random):
    """Elementwise operators, whose products are reproducible themselves."""
    d, b = 1 + 10 * random(1024, 40).abs(), random(1024, 40, seed=1)

    def solve(d, b):
        return kind(rtol=1e-9).solve(FunctionOperator(lambda v: d * v, b), b)

    found = solve(d, b)
    assert found.converged.all()
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(2))
    for name, value in zip(found._fields[:-1], solve(d[order], b[order])[:-1], strict=True):
        assert torch.equal(value, getattr(found, name)[order]), name

    others_d, others_b = 1 + 100 * random(1024, 40, seed=3).abs(), random(1024, 40, seed=4)
    others_d[0], others_b[0] = d[0], b[0]
    others_d[1], others_b[2], others_d[3] = torch.nan, torch.inf, 0
    others = solve(others_d, others_b)
    assert torch.equal(others.x[0], found.x[0])
    assert others.n_steps[0] == found.n_steps[0]
    assert not others.converged[1:4].any()
    assert others.breakdown[1:4].all()

    torch.testing.assert_close(solve(d[:1], b[:1]).x[0], found.x[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
def test_a_singular_sample_is_told_and_its_neighbour_solved(kind, counted_operator):
    singular = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=D))
    a = torch.stack([singular, torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=D)), torch.zeros(3, 3, dtype=D)])
    operator = counted_operator(a)
    found = solver(kind, rtol=1e-10).solve(operator, torch.ones(3, 3, dtype=D))
    assert found.converged.tolist() == [False, True, False]
    assert found.breakdown.tolist() == [True, False, True]
    torch.testing.assert_close(found.x[1], torch.tensor([1.0, 0.5, 0.25], dtype=D), rtol=0, atol=1e-10)
    assert found.n_products == operator.calls
    if kind is DenseLU:
        assert found.x[0].isnan().all()
        assert found.x[2].isnan().all()
    else:
        assert (found.residual[[0, 2]] >= 1 - 1e-12).all()  # what no vector can lower
        assert found.x.isfinite().all()


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_singular_system_may_have_a_solution(kind):
    a = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=D))
    found = kind(rtol=1e-10).solve(MatrixOperator(a), torch.tensor([1.0, 1.0, 0.0], dtype=D))
    assert found.converged
    torch.testing.assert_close(found.x, torch.tensor([1.0, 0.5, 0.0], dtype=D), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_where_it_is(kind, bad, random):
    a, b = definite(random, 3), random(3, 6, seed=1)
    expected = solver(kind, rtol=1e-10).solve(MatrixOperator(a), b)
    a[0, 2, 3] = bad
    b[2, 0] = bad
    found = solver(kind, rtol=1e-10).solve(MatrixOperator(a), b)
    assert found.converged.tolist() == [False, True, False]
    assert found.breakdown.tolist() == [True, False, True]
    torch.testing.assert_close(found.x[1], expected.x[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, 1e-310])
@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_product_that_leads_nowhere_costs_its_step_and_not_those_before(kind, fault, random):
    """It is not finite, or so short that the step is too long for a number."""
    a, b = definite(random, size=12), random(12, seed=1)
    calls = []

    def product(v):
        calls.append(1)
        return v * fault if len(calls) == 3 else a @ v

    found = kind(rtol=1e-10).solve(FunctionOperator(product, b), b)
    assert found.converged
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_who_runs_out_of_steps_has_not_broken_down(kind, random, counted_operator):
    a, b = definite(random, 2, size=20), random(2, 20, seed=1)
    operator = counted_operator(a)
    found = kind(rtol=1e-12, max_steps=3).solve(operator, b)
    assert found.n_steps.tolist() == [3, 3]
    assert not found.converged.any()
    assert not found.breakdown.any()
    assert found.n_products == operator.calls
    assert (found.residual < torch.linalg.vector_norm(b, dim=-1)).all()
    torch.testing.assert_close(found.residual, residual(a, found.x, b), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_what_rounding_does_not_permit_ends(kind, random, with_eigenvalues):
    a = with_eigenvalues(torch.logspace(-6, 0, 8, dtype=D), 4)
    b = random(4, 8, seed=1)
    found = kind(rtol=4 * EPS, max_steps=10**6).solve(MatrixOperator(a), b)
    assert (found.converged | found.breakdown).all()  # whether rounding permits it is a matter of luck
    rounding = 10 * EPS * found.x.norm(dim=-1).max().item()  # of products with a matrix of norm 1
    torch.testing.assert_close(found.residual, residual(a, found.x, b), rtol=0, atol=rounding)
    assert (found.n_steps < 2000).all()


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_preconditioner_saves_steps_and_the_residual_is_the_systems_own(kind, random, counted_operator):
    scales = torch.logspace(0, 4, 20, dtype=D)
    a = torch.diag(scales) + 0.1 * definite(random, 3, size=20)
    b = random(3, 20, seed=1)
    plain = kind(rtol=1e-9).solve(MatrixOperator(a), b)
    operator = counted_operator(a)
    found = kind(rtol=1e-9, preconditioner=lambda v: v / scales).solve(operator, b)
    assert (2 * found.n_steps < plain.n_steps).all()
    assert found.converged.all()
    assert found.n_products == operator.calls
    torch.testing.assert_close(found.residual, residual(a, found.x, b), rtol=1e-2, atol=1e-14)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=1e-8)
    inverse = kind(rtol=1e-9, preconditioner=MatrixOperator(torch.linalg.inv(a))).solve(MatrixOperator(a), b)
    assert (inverse.n_steps <= 2).all()


@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
def test_vmap_solves_each_lane(kind, random):
    a, b = definite(random, 4, 5), random(4, 5, 6, seed=1)
    expected = solver(kind, rtol=1e-10).solve(MatrixOperator(a), b)
    solve = torch.func.vmap(lambda a, b: solver(kind, rtol=1e-10).solve(MatrixOperator(a), b)[:5])
    for name, value in zip(expected._fields, solve(a, b), strict=False):
        torch.testing.assert_close(value, getattr(expected, name), rtol=0, atol=1e-13)
    lanes = torch.func.vmap(lambda b: solver(kind, rtol=1e-10).solve(MatrixOperator(a[0]), b).x)(b)
    expected = torch.linalg.solve(a[0], b.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(lanes, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ITERATIVE, **ids)
def test_a_newton_step(kind, random):
    """The Jacobian is the gradient's of a convex function, so that every solver may have it."""
    x = random(3, 10)
    calls = []

    def gradient(x):
        calls.append(1)
        return 3 * x + x.sin() + x.sum(-1, keepdim=True)

    jacobian = torch.diag_embed(3 + x.cos()) + 1
    b = random(3, 10, seed=1)
    found = kind(rtol=1e-10).solve(JacobianOperator(gradient, x), b)
    torch.testing.assert_close(found.x, torch.linalg.solve(jacobian, b), rtol=0, atol=1e-9)
    assert found.n_products == len(calls)


class Operations(TorchDispatchMode):
    """Counts operations that compute: whose results are no views."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += all(result.alias_info is None for result in func._schema.returns)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "most"), [(GMRES, 75), (ConjugateGradient, 35), (BiCGStab, 55)], **ids)
def test_what_a_step_costs(kind, most, random, host_reads):
    """The difference of two solves, so that start and end do not count. Products take one operation each."""
    scales, b = torch.linspace(1, 9, 20, dtype=D), random(4, 20, seed=1)
    costs = []
    for n_steps in (3, 13):
        host_reads.clear()
        with Operations() as operations:
            found = kind(rtol=1e-14, max_steps=n_steps).solve(FunctionOperator(lambda v: scales * v, b), b)
        assert (found.n_steps == n_steps).all()
        costs.append((operations.n, len(host_reads)))
    (few, few_reads), (many, many_reads) = costs
    assert many_reads - few_reads == 10
    assert 10 < (many - few) / 10 <= most


@pytest.mark.parametrize("kind", [*ITERATIVE, DenseLU], **ids)
@pytest.mark.parametrize("whose", ["b", "operator"])
def test_gradients_are_refused(kind, whose, random):
    a, b = definite(random), random(6, seed=1)
    (b if whose == "b" else a).requires_grad_()
    with pytest.raises(ValueError, match="requires grad, expected none"):
        solver(kind).solve(MatrixOperator(a), b)
    with torch.no_grad():
        assert solver(kind).solve(MatrixOperator(a), b).converged


def test_autocast_ends_where_a_solver_begins(random):
    a, b = definite(random, dtype=torch.float32), random(6, dtype=torch.float32, seed=1)
    for kind in (*ITERATIVE, DenseLU):
        expected = solver(kind, rtol=1e-6).solve(MatrixOperator(a), b)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(solver(kind, rtol=1e-6).solve(MatrixOperator(a), b).x, expected.x)


def test_misuse(random):
    operator, b = MatrixOperator(definite(random, 2)), random(2, 6)
    method = GMRES()
    with pytest.raises(TypeError, match=r"operator: got a Tensor, expected a LinearOperator; try MatrixOperator"):
        method.solve(definite(random, 2), b)
    with pytest.raises(TypeError, match=r"operator: got dtype torch.float16, expected float32"):
        method.solve(MatrixOperator(torch.eye(2).half()), torch.ones(2).half())
    with pytest.raises(ValueError, match=r"b: got shape \[6\], expected \[2, 6\]"):
        method.solve(operator, b[0])
    with pytest.raises(ValueError, match=r"x0: got dtype torch.float32, expected torch.float64"):
        method.solve(operator, b, x0=b.float())
    with pytest.raises(TypeError, match=r"b: got a list, expected a tensor"):
        method.solve(operator, [1.0])
    with pytest.raises(ValueError, match=r"rtol: got 8e-16, expected at least 4 eps = 8.88e-16 for torch.float64"):
        method.solve(operator, b, rtol=8e-16)
    with pytest.raises(ValueError, match=r"rtol: got 1e-08, expected at least 4 eps = 4.77e-07 for torch.float32"):
        GMRES(rtol=1e-8).solve(MatrixOperator(torch.eye(2)), torch.ones(2))
    with pytest.raises(ValueError, match=r"rtol: got shape \[3\], expected one that broadcasts against \[2\]"):
        method.solve(operator, b, rtol=torch.ones(3))
    with pytest.raises(TypeError, match=r"rtol: got dtype torch.int64, expected a floating dtype"):
        method.solve(operator, b, rtol=torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rtol: got -1.0, expected a positive and finite number"):
        GMRES(rtol=-1.0)
    with pytest.raises(TypeError, match=r"rtol: got a str, expected a number"):
        BiCGStab(rtol="small")
    with pytest.raises(ValueError, match=r"restart: got 0, expected a positive integer"):
        GMRES(restart=0)
    with pytest.raises(TypeError, match=r"max_steps: got a float, expected a positive integer"):
        ConjugateGradient(max_steps=1.5)
    with pytest.raises(TypeError, match=r"preconditioner: got a Tensor, expected a function of vectors"):
        GMRES(preconditioner=torch.eye(2))


def test_how_solvers_print():
    assert repr(GMRES(restart=5, rtol=1e-3, max_steps=7)) == "GMRES(restart=5, rtol=0.001, max_steps=7)"
    assert repr(ConjugateGradient()) == "ConjugateGradient(rtol=1e-05)"
    assert repr(DenseLU()) == "DenseLU()"
