"""Gradients through the steps, and function transforms."""

import math

import pytest
import torch

from dyn_numerics import Anderson, Broyden, Newton, fixed_point, root_find
from dyn_numerics.root.root_stepper import Proposal, RootStepper

D = torch.float64
METHODS = ["newton", "chord", Broyden(jacobian=-1.0), Broyden(update="bad"), "anderson", "fixed_point"]


def h(z, a):
    return torch.cos(a * z)


def slope(a):
    """The fixed point of cos(a z), and its derivative."""
    z = torch.tensor(0.5, dtype=D)
    for _ in range(200):
        z = z - (z - torch.cos(a * z)) / (1 + a * torch.sin(a * z))
    return z, -z * torch.sin(a * z) / (1 + a * torch.sin(a * z))


@pytest.mark.parametrize("solver", METHODS, ids=repr)
@pytest.mark.parametrize("line_search", [None, "armijo"])
def test_gradients_of_converged_steps_are_those_of_the_fixed_point(solver, line_search):
    a = torch.tensor([0.3, 0.6, 0.9], dtype=D, requires_grad=True)
    z0 = torch.full((3, 1), 0.8, dtype=D, requires_grad=True)
    z, _ = fixed_point(
        lambda z: h(z, a.unsqueeze(-1)), z0, solver=solver, line_search=line_search, rtol=1e-13, atol=1e-13
    )
    gradients = torch.autograd.grad(z.sum(), (a, z0))
    exact = torch.stack([torch.stack(slope(value)) for value in a.detach()])
    torch.testing.assert_close(z.squeeze(-1), exact[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[0], exact[:, 1], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients[1], torch.zeros(3, 1, dtype=D), rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
@pytest.mark.parametrize("line_search", [None, "armijo"])
def test_gradients_of_few_steps_agree_with_differences(solver, line_search):
    """Far from the fixed point, where the gradient depends on the start and on every step."""
    z0 = torch.tensor([[0.1, 1.0], [0.4, -0.3]], dtype=D)
    a = torch.tensor([[0.7, 0.9], [0.8, 0.6]], dtype=D)

    def end(z0, a, steps):
        z, _ = fixed_point(
            lambda z: h(z, a), z0, solver=solver, line_search=line_search, max_steps=steps, rtol=1e-15, throw=False
        )
        return z

    for steps in (1, 2, 3):
        assert torch.autograd.gradcheck(
            lambda z0, a, steps=steps: end(z0, a, steps), (z0.requires_grad_(), a.requires_grad_()), atol=1e-7
        )


def test_gradients_beside_samples_that_end_early_or_fail():
    """A sample that has ended, is NaN from the start or becomes NaN meets no gradient of what all share."""
    theta = torch.tensor(2.0, dtype=D, requires_grad=True)

    def g(z):
        # The derivative is infinite where the samples of rows 1 and 2 end, and not a number beyond.
        return torch.sqrt(z - 1) - (theta - 1) ** 0.5 * torch.ones_like(z)

    z0 = torch.tensor([[2.5], [0.5], [9.0]], dtype=D)
    alone = root_find(g, z0[:1], solver="newton", rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(alone.z.sum(), theta)[0]
    mixed = root_find(g, z0, solver="newton", rtol=1e-12, atol=1e-12, throw=False)
    assert mixed.converged.tolist() == [True, False, False]
    assert expected.item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(torch.autograd.grad(mixed.z[0].sum(), theta)[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", METHODS[:-1], ids=repr)
@pytest.mark.parametrize("line_search", [None, "armijo"])
def test_gradients_of_a_common_factor_beside_samples_that_are_not_finite(solver, line_search):
    """At the start or after a step, where the factor's derivative is the logarithm of what is not positive."""
    factor = torch.tensor(1.5, dtype=D, requires_grad=True)
    calls = []

    def g(z):
        calls.append(z)
        return 0.5 - factor * torch.log(z)

    z0 = torch.tensor([[1.0], [-1.0], [9.0], [0.0]], dtype=D)
    found = root_find(g, z0, solver=solver, line_search=line_search, rtol=1e-10, throw=False)
    assert found.converged.tolist()[::3] == [True, False]
    assert found.stats.n_evals.item() == len(calls)
    (gradient,) = torch.autograd.grad(found.z[0].sum(), factor)
    assert gradient.item() == pytest.approx(-0.5 / 1.5**2 * math.exp(0.5 / 1.5), rel=1e-6)


def test_forward_and_reverse_derivatives_hold_the_lengths_of_a_line_search():
    def end(p, steps):
        z0 = torch.full((1, 1), 3.0, dtype=D)  # from where Newton's method alone diverges
        sol = root_find(
            lambda z: torch.atan(z * p), z0, solver="newton", line_search="armijo", max_steps=steps, throw=False
        )
        return sol.z.sum()

    p = torch.tensor(1.3, dtype=D)
    for steps in (1, 2):
        reverse = torch.func.jacrev(end)(p, steps)
        torch.testing.assert_close(torch.func.jacfwd(end)(p, steps), reverse, rtol=1e-12, atol=0)
        with torch.no_grad():
            torch.testing.assert_close(torch.func.jacfwd(end)(p, steps), reverse, rtol=1e-12, atol=0)


class Normalised(RootStepper):
    """Steps along the residual whose length depends on its norm."""

    def step(self, f, z, carry, context):
        return Proposal(z + (0.5 / (1 + context.norm)).unsqueeze(-1) * context.value, carry)


def test_gradients_reach_a_method_through_the_norm_of_the_residual():
    def end(p):
        z0 = torch.full((1, 2), 0.1, dtype=D)
        return root_find(lambda z: p - z, z0, solver=Normalised(), max_steps=3, throw=False).z.sum()

    p = torch.tensor(1.3, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(end, (p,), check_forward_ad=True)


def test_a_start_that_is_a_solution_has_no_gradient_and_says_so(recwarn):
    a = torch.tensor([[4.0], [2.0]], dtype=D, requires_grad=True)
    start = torch.tensor([[2.0], [1.5]], dtype=D)
    with pytest.warns(UserWarning, match="z0: solves the equations of 1 of 2 samples") as warned:
        z, _ = root_find(lambda z: z**2 - a, start, solver="newton", rtol=1e-13)
    assert warned[0].filename == __file__  # it is the caller's start
    (gradient,) = torch.autograd.grad(z.sum(), a)
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [8**-0.5]], dtype=D), rtol=0, atol=1e-10)
    recwarn.clear()
    with torch.no_grad():
        root_find(lambda z: z**2 - a, start, solver="newton")
    root_find(lambda z: z**2 - a, torch.full((2, 1), 1.5, dtype=D), solver="newton")
    assert not recwarn.list


def test_nothing_is_recorded_where_nobody_wants_a_gradient():
    sol = fixed_point(torch.cos, torch.ones(2, 1, dtype=D))
    assert not sol.z.requires_grad
    layer = torch.nn.Linear(3, 3)
    with torch.no_grad():
        sol = fixed_point(lambda z: 0.1 * layer(z), torch.ones(2, 3))
    assert not sol.z.requires_grad


@pytest.mark.parametrize(
    "solver", ["newton", "broyden", "anderson", "fixed_point", "newton_krylov", "levenberg_marquardt", "bisection"]
)
def test_vmap_solves_each_problem_as_alone(solver):
    a = torch.tensor([0.3, 0.6, 0.9], dtype=D)
    z0 = torch.full((2, 1), 0.8, dtype=D)

    def solve(a):
        return fixed_point(lambda z: h(z, a), z0, solver=solver, rtol=1e-12, atol=1e-12).z

    found = torch.func.vmap(solve)(a)
    torch.testing.assert_close(found, torch.stack([solve(value) for value in a]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev])
@pytest.mark.parametrize("solver", ["newton", Broyden(update="bad"), Anderson(m=2)])
def test_jacobians(transform, solver):
    def solve(a):
        return fixed_point(
            lambda z: h(z, a), torch.full((1, 1), 0.8, dtype=D), solver=solver, rtol=1e-13, atol=1e-13
        ).z.squeeze()

    a = torch.tensor(0.7, dtype=D)
    torch.testing.assert_close(transform(solve)(a), slope(a)[1], rtol=0, atol=1e-6)
    lanes = torch.tensor([0.3, 0.7], dtype=D)
    expected = torch.stack([slope(value)[1] for value in lanes])
    torch.testing.assert_close(torch.func.vmap(transform(solve))(lanes), expected, rtol=0, atol=1e-6)


def test_methods_without_gradients_say_so():
    a = torch.tensor(0.7, dtype=D, requires_grad=True)
    for solver in ("newton_krylov", "levenberg_marquardt", "bisection"):
        with pytest.raises(ValueError, match=r"solver: got a \w+, through whose steps no gradient flows"):
            fixed_point(lambda z: h(z, a), torch.ones(1, 1, dtype=D), solver=solver)
        with pytest.raises(ValueError, match="through whose steps no gradient flows"):
            torch.func.jacfwd(
                lambda a, s=solver: fixed_point(lambda z: h(z, a), torch.ones(1, 1, dtype=D), solver=s).z
            )(a.detach())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev])
@pytest.mark.parametrize("solver", ["newton", "chord", Broyden(jacobian="exact"), "anderson"], ids=repr)
def test_jacobians_of_systems_in_lanes(solver, transform, batch):
    """Under vmap, where torch's own solves have wrong derivatives for a batch of one matrix."""

    def solve(a):
        def g(z):
            x, y = z.unbind(-1)
            return torch.stack([-2 * x - 0.3 * y + a * torch.sin(y) + a, -1.5 * y + 0.4 * a * x**2 + 0.2 * x - 0.3], -1)

        z0 = torch.full((batch, 2), 0.1, dtype=D)
        return root_find(g, z0, solver=solver, rtol=1e-13, atol=1e-13).z[0]

    lanes = torch.tensor([0.3, 0.7, 1.1], dtype=D)
    differences = torch.stack([(solve(a + 1e-6) - solve(a - 1e-6)) / 2e-6 for a in lanes])
    torch.testing.assert_close(torch.func.vmap(transform(solve))(lanes), differences, rtol=0, atol=1e-8)


def test_second_derivative_through_newtons_steps():
    def root(a):
        return root_find(lambda z: z**2 - a, torch.full((1, 1), 1.5, dtype=D), solver=Newton(), rtol=1e-15).z.squeeze()

    a = torch.tensor(2.0, dtype=D)
    second = torch.func.grad(torch.func.grad(root))(a)
    assert second.item() == pytest.approx(-(2 ** (-1.5)) / 4, rel=1e-6)
    assert math.isfinite(second)
