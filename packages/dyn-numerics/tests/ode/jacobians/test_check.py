"""`check=True`: a Jacobian or a structure that the field does not have is refused, by its worst entry."""

import pytest
import torch

from dyn_numerics import BandedJacobian, BlockDiagonalJacobian, DenseJacobian

D = torch.float64


@pytest.mark.parametrize("lead", [(), (3,)])
def test_one_wrong_entry(lead, neighbours, random, context):
    x, t = random(*lead, 9), random(*lead, seed=1)

    def jac(wrong):
        def of(t, x):
            matrix = neighbours.jacobian(t.reshape(lead), x).clone()
            matrix[(-1,) * len(lead)][4, 2] += wrong
            return matrix

        return DenseJacobian(of, check=True).on(context(x, bool(lead)))

    for with_rate in (False, True):
        neighbours.calls = 0
        jac(0.0).linearise(neighbours, t, x, with_rate)
        jac(1e-12).linearise(neighbours, t, x, with_rate)
        assert neighbours.calls == 2, "the product comes along with the value"
        whose = " of sample 2" if lead else ""
        message = (
            f"jac: got a function whose derivative of element 4{whose} by element 2 is 0.001, expected 0, which the"
        )
        with pytest.raises(ValueError, match=message):
            jac(1e-3).linearise(neighbours, t, x, with_rate)


def test_a_transposed_matrix(neighbours, random, context):
    x, t = random(9), random(1)[0]
    jacobian = DenseJacobian(lambda t, x: neighbours.jacobian(t, x).mT, check=True).on(context(x))
    with pytest.raises(ValueError, match="correct it, or leave it out"):
        jacobian.linearise(neighbours, t, x)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (BandedJacobian(1, 2, check=True), BandedJacobian(1, 1, check=True)),
        (BandedJacobian(1, 2, check=True), BandedJacobian(0, 2, check=True)),
        (BlockDiagonalJacobian(9, check=True), BlockDiagonalJacobian(3, check=True)),
    ],
    ids=repr,
)
def test_a_structure_that_the_field_does_not_have(right, wrong, lead, neighbours, random):
    x, t = random(*lead, 9), random(*lead, seed=1)
    right.linearise(neighbours, t, x)
    assert neighbours.calls == 1
    name = type(wrong).__name__
    with pytest.raises(ValueError, match=rf"jac: got a {name}\(.*declare what the field has, or try DenseJacobian\(\)"):
        wrong.linearise(neighbours, t, x)
    neighbours.calls = 0
    unchecked = type(wrong)(3) if isinstance(wrong, BlockDiagonalJacobian) else type(wrong)(wrong.lower, wrong.upper)
    unchecked.linearise(neighbours, t, x)


def test_a_complex_field_that_has_no_jacobian(random):
    x = random(4, dtype=torch.complex128)
    DenseJacobian(check=True).linearise(lambda t, x: x**2, torch.zeros((), dtype=D), x)
    with pytest.raises(ValueError, match=r"jac: got a DenseJacobian\(check=True\) whose derivative"):
        DenseJacobian(check=True).linearise(lambda t, x: x * x.abs(), torch.zeros((), dtype=D), x)


def test_what_is_not_finite_is_no_disagreement(neighbours, random):
    x = random(3, 9)
    x[1, 4] = torch.nan
    near = DenseJacobian(check=True).linearise(neighbours, torch.ones(3, dtype=D), x)
    assert near.jacobian[1].isnan().any()
    assert near.jacobian[[0, 2]].isfinite().all()


def test_nothing_is_compared_where_values_cannot_be_read(neighbours, random):
    wrong = BandedJacobian(1, 1, check=True)
    found = torch.func.vmap(lambda x: wrong.linearise(neighbours, torch.ones((), dtype=D), x).slope)(random(3, 9))
    torch.testing.assert_close(found, neighbours(torch.ones(3, dtype=D), random(3, 9)), rtol=0, atol=1e-14)
