"""Samples that fail leave the gradients of their neighbours alone."""

from __future__ import annotations

import warnings

import pytest
import torch

from dyn_numerics import PerSample
from dyn_sensitivity import ImplicitDifferentiation, Phantom, fixed_point, root_find

TIGHT = {"rtol": 1e-13, "atol": 1e-13}


def gradients(a, shared, sensitivity):
    """Of square roots that all share a factor; of a sample without a finite residual, and of others without a root."""
    z, _ = root_find(
        lambda z, a: z**2 - shared * torch.log(a),
        torch.ones_like(a),
        args=(PerSample(a),),
        solver="newton",
        sensitivity=sensitivity,
        throw=False,
        **TIGHT,
    )
    return (
        z,
        torch.autograd.grad(z[:2].sum(), (a, shared), retain_graph=True),
        torch.autograd.grad(z.sum(), (a, shared)),
    )


@pytest.mark.parametrize(
    "sensitivity", [ImplicitDifferentiation("dense"), ImplicitDifferentiation("gmres")], ids=["dense", "gmres"]
)
def test_a_sample_without_a_residual(sensitivity):
    shared = torch.tensor(1.5, requires_grad=True)
    a = torch.tensor([[2.0], [3.0], [-1.0]], requires_grad=True)
    alone = torch.tensor([[2.0], [3.0]], requires_grad=True)
    z, some, every = gradients(a, shared, sensitivity)
    z_alone, expected, _ = gradients(alone, shared, sensitivity)
    assert torch.equal(z[:2], z_alone)
    assert torch.equal(z[2], torch.ones(1))
    for found in (some, every):  # the last adds nothing to any of them
        torch.testing.assert_close(found[0][:2], expected[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=0)
        assert found[0][2].item() == 0


@pytest.mark.parametrize("sensitivity", ["phantom", "shine"])
def test_biased_gradients_beside_a_sample_without_a_residual(sensitivity):
    def found(a):
        z, _ = fixed_point(
            lambda z, a: torch.cos(z * shared) * torch.sqrt(a),
            torch.ones_like(a),
            args=(PerSample(a),),
            solver="broyden",
            sensitivity=sensitivity,
            throw=False,
            **TIGHT,
        )
        return torch.autograd.grad(z.sum(), (a, shared))

    shared = torch.tensor(0.5, requires_grad=True)
    of_a, of_shared = found(torch.tensor([[0.5], [-1.0], [0.8]], requires_grad=True))
    expected, of_shared_alone = found(torch.tensor([[0.5], [0.8]], requires_grad=True))
    torch.testing.assert_close(of_a[[0, 2]], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_shared, of_shared_alone, rtol=1e-12, atol=0)


def test_no_sample_has_a_residual():
    a = torch.full((2, 1), -1.0, requires_grad=True)
    z, _ = root_find(lambda z, a: z - torch.log(a), torch.ones(2, 1), args=(a,), throw=False)
    assert not z.requires_grad


@pytest.mark.parametrize("linear_solver", ["dense", "gmres"])
def test_a_singular_jacobian(linear_solver):
    """A double root, whose gradient is infinite: it is left out, and warned of."""
    shared = torch.tensor(1.0, requires_grad=True)
    a = torch.tensor([[1.0], [0.0]], requires_grad=True)
    z, _ = root_find(
        lambda z, a: (z * z - a) * shared,
        torch.tensor([[1.1], [0.0]]),
        args=(a,),
        solver="newton",
        sensitivity=ImplicitDifferentiation(linear_solver),
        **TIGHT,
    )
    with pytest.warns(UserWarning, match=r"linear system of a gradient was not solved for 1 of 2 samples"):
        of_a, of_shared = torch.autograd.grad(z.sum(), (a, shared))
    assert of_a.flatten().tolist() == pytest.approx([0.5, 0.0], abs=1e-12)
    assert of_shared.item() == pytest.approx(0.0, abs=1e-12)


def test_a_sample_that_has_not_converged_is_differentiated_where_it_is():
    a = torch.tensor([[0.5]], requires_grad=True)
    z, _stats = fixed_point(
        lambda z, a: torch.cos(a * z), torch.zeros(1, 1), args=(a,), solver="fixed_point", max_steps=2, throw=False
    )
    (found,) = torch.autograd.grad(z.sum(), a)
    sine = torch.sin(a * z)
    torch.testing.assert_close(found, -z * sine / (1 + a * sine), rtol=1e-12, atol=0)


def test_under_transforms():
    shared = torch.tensor(1.5)
    a = torch.tensor([[2.0], [3.0], [-1.0]])

    def total(shared):
        return (
            root_find(
                lambda z, a: z**2 - shared * torch.log(a),
                torch.ones(3, 1),
                args=(PerSample(a),),
                solver="newton",
                throw=False,
                **TIGHT,
            )
            .z[:2]
            .sum()
        )

    expected = (torch.log(a[:2]) / shared).sqrt().sum() / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(torch.func.grad(total)(shared), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.func.jacfwd(total)(shared), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [5, 20])
def test_a_neighbour_whose_phantom_steps_overflow(steps):
    """It diverged, with a residual that is finite; the gradient of what both share is the other one's."""
    q, c = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), torch.tensor([[0.3], [3.0]]).double()
    options = {"sensitivity": Phantom(steps), "throw": False, "max_steps": 30}
    alone, both = (
        fixed_point(lambda z, c=c[:n]: c * torch.exp(z) * q, torch.zeros(n, 1).double(), **options).z[0].sum()
        for n in (1, 2)
    )
    (expected,), (found,) = (torch.autograd.grad(z, q) for z in (alone, both))
    assert expected.item() > 0.9
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
