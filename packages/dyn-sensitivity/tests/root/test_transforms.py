"""`torch.func` and forward mode: every composition has the derivatives of reverse mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from dyn_numerics import GMRES
from dyn_numerics.transforms import derivatives_are_off, without_derivatives
from dyn_sensitivity import ImplicitDifferentiation, fixed_point, root_find

TIGHT = {"rtol": 1e-13, "atol": 1e-13}


def solved(w, x, **options):
    return fixed_point(lambda z, w, x: torch.tanh(z @ w + x), torch.zeros(2, 3), args=(w, x), **TIGHT, **options).z


def loss(w, x):
    return (solved(w, x) ** 2).sum()


def inputs():
    return (0.3 * torch.randn(3, 3)).requires_grad_(), torch.randn(2, 3)


@pytest.mark.parametrize("outer", [jacfwd, jacrev])
@pytest.mark.parametrize("inner", [jacfwd, jacrev])
def test_hessians(outer, inner):
    w, x = inputs()
    expected = torch.autograd.functional.hessian(lambda w: loss(w, x), w)
    torch.testing.assert_close(outer(inner(loss))(w.detach(), x), expected, rtol=0, atol=1e-12)


def test_third_derivatives():
    def root(a):
        return root_find(lambda z: z**2 - a, torch.ones(1, 1), solver="newton", **TIGHT).z.sum()

    a = torch.tensor(2.0)
    third = grad(jacfwd(grad(root)))(a)
    assert third.item() == pytest.approx(3 / 8 * 2.0**-2.5, rel=1e-12)


def test_reverse_mode_outside_of_forward_mode():
    """Of a tensor that requires a gradient by itself: twice differentiable beside the transform."""
    a = torch.tensor(2.0, requires_grad=True)

    def root(b):
        return root_find(lambda z: z**2 - a * b, torch.ones(1, 1), solver="newton", **TIGHT).z.sum()

    _, tangent = jvp(root, (torch.tensor(1.0),), (torch.tensor(1.0),))  # sqrt(a) / 2
    (first,) = torch.autograd.grad(tangent, a, create_graph=True)
    (second,) = torch.autograd.grad(first, a)
    assert tangent.item() == pytest.approx(2**0.5 / 2, rel=1e-12)
    assert first.item() == pytest.approx(2**-0.5 / 4, rel=1e-12)
    assert second.item() == pytest.approx(-(2**-1.5) / 8, rel=1e-12)


def test_lanes():
    """Gradients of each sample by itself; and of lanes, from outside."""
    w, x = inputs()

    def of_one(w, x):
        return (fixed_point(lambda z: torch.tanh(z @ w + x), torch.zeros(1, 3), **TIGHT).z ** 2).sum()

    (expected,) = torch.autograd.grad(loss(w, x), w)
    each = vmap(grad(of_one), (None, 0))(w.detach(), x)
    torch.testing.assert_close(each.sum(0), expected, rtol=0, atol=1e-12)
    (outside,) = torch.autograd.grad(vmap(of_one, (None, 0))(w, x).sum(), w)
    torch.testing.assert_close(outside, expected, rtol=0, atol=1e-12)


def test_forward_mode():
    w, x = inputs()
    assert gradcheck(solved, (w, x.requires_grad_()), check_forward_ad=True)
    with forward_ad.dual_level():
        z = solved(forward_ad.make_dual(w.detach(), torch.ones_like(w)), x.detach())
        tangent = forward_ad.unpack_dual(z).tangent
    _, expected = jvp(lambda w: solved(w, x.detach()), (w.detach(),), (torch.ones_like(w),))
    torch.testing.assert_close(tangent, expected, rtol=0, atol=1e-12)


def test_functional_calls():
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    parameters = {name: p.detach() * 0.5 for name, p in layer.named_parameters()}

    def loss(parameters):
        def h(z):
            return torch.tanh(functional_call(layer, parameters, (z,)) + x)

        return fixed_point(h, torch.zeros(2, 3), **TIGHT).z.sum()

    found = grad(loss)(parameters)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.copy_(parameters[name])
    fixed_point(lambda z: torch.tanh(layer(z) + x), torch.zeros(2, 3), **TIGHT).z.sum().backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=0, atol=1e-12)


def test_searches_that_are_not_differentiable_themselves():
    a = torch.tensor(0.6)

    def root(a):
        return root_find(
            lambda z: torch.cos(a * z) - z, torch.full((1, 1), 0.7), solver="newton_krylov", **TIGHT
        ).z.sum()

    z = root(a)
    slope = -z * torch.sin(a * z) / (1 + a * torch.sin(a * z))
    torch.testing.assert_close(grad(root)(a), slope, rtol=1e-10, atol=0)
    torch.testing.assert_close(jacfwd(root)(a), slope, rtol=1e-10, atol=0)


def test_derivatives_may_be_off():
    seen = []

    def f(a):
        with without_derivatives():
            seen.append(derivatives_are_off())
            b = a**2
        return a * b

    assert not derivatives_are_off()
    assert (grad(f)(torch.tensor(3.0)).item(), jacfwd(f)(torch.tensor(3.0)).item()) == (9.0, 9.0)
    assert seen == [True, True]


def test_iterative_linear_solvers_are_refused():
    w, x = inputs()
    with pytest.raises(ValueError, match=r"linear_solver: got GMRES.* under torch.func or in forward mode"):
        jacfwd(lambda w: solved(w, x, sensitivity=ImplicitDifferentiation(GMRES())))(w.detach())


def test_values_are_those_of_the_search():
    """However far it is from the root."""
    x = torch.randn(2, 3)

    def found(x):
        def h(z, x):
            return torch.tanh(0.9 * z + x)

        return fixed_point(h, torch.zeros(2, 3), args=(x,), solver="fixed_point", max_steps=2, throw=False).z

    plain = found(x)
    assert torch.equal(jvp(found, (x,), (x,))[0], plain)
    assert torch.equal(torch.func.vjp(found, x)[0], plain)
    assert torch.equal(found(x.requires_grad_()), plain)
