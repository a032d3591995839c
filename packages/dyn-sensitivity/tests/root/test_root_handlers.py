"""Handlers and their arguments: bad input is refused by name."""

from __future__ import annotations

import pytest
import torch

from dyn_numerics import MaxStepsError
from dyn_sensitivity import (
    FixedPointLinearSolver,
    ImplicitDifferentiation,
    Phantom,
    RootSensitivity,
    fixed_point,
    root_find,
)


@pytest.mark.parametrize(
    ("sensitivity", "error", "message"),
    [
        (
            "implicitly",
            ValueError,
            r"sensitivity: got 'implicitly', expected one of implicit, unrolled, .*did you mean 'implicit'",
        ),
        (3, TypeError, "sensitivity: got a int, expected a name or a dyn_sensitivity.RootSensitivity"),
        (ImplicitDifferentiation, TypeError, "sensitivity: got the class ImplicitDifferentiation"),
    ],
)
def test_sensitivities(sensitivity, error, message):
    for handler in (root_find, fixed_point):
        with pytest.raises(error, match=message):
            handler(torch.cos, torch.ones(1, 1), sensitivity=sensitivity)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ImplicitDifferentiation("gmre"),
            ValueError,
            r"linear_solver: got 'gmre', expected one of dense, .*did you mean 'gmres'",
        ),
        (lambda: ImplicitDifferentiation(3), TypeError, "linear_solver: got a int, expected a name"),
        (lambda: ImplicitDifferentiation(rtol="small"), TypeError, "rtol: got a str, expected a number"),
        (lambda: ImplicitDifferentiation(warm_start=1), TypeError, "warm_start: got a int, expected a truth value"),
        (lambda: ImplicitDifferentiation(rtol=0.0), ValueError, "rtol: got 0.0, expected a positive number"),
        (lambda: FixedPointLinearSolver("newtn"), ValueError, "solver: got 'newtn'.*did you mean 'newton'"),
        (lambda: FixedPointLinearSolver(max_steps=0), ValueError, "max_steps: got 0"),
        (lambda: Phantom(steps=0), ValueError, "steps: got 0"),
        (lambda: Phantom(damping=-1.0), ValueError, "damping: got -1.0"),
    ],
)
def test_algorithms(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("sensitivity", ["implicit", "unrolled"])
def test_arguments_of_the_search_are_checked_as_ever(sensitivity):
    for options, error, message in (
        ({"solver": "newtn"}, ValueError, "did you mean 'newton'"),
        ({"rtol": 0.0}, ValueError, "rtol: got 0.0"),
        ({"args": 3}, TypeError, "args: got a int"),
    ):
        with pytest.raises(error, match=message):
            root_find(torch.cos, torch.ones(1, 1), sensitivity=sensitivity, **options)
    with pytest.raises(MaxStepsError) as raised:
        fixed_point(torch.cos, torch.ones(2, 1), solver="fixed_point", max_steps=2, sensitivity=sensitivity)
    assert raised.value.solution.z.shape == (2, 1)


def test_an_algorithm_of_ones_own():
    class Negative(RootSensitivity):
        """The negative of the gradient."""

        def solve(self, problem):
            return problem.differentiate(lambda residual, z: z.detach() + (residual(z) - residual(z).detach()).neg())

    a = torch.tensor(0.5, requires_grad=True)
    z, _ = fixed_point(lambda z: a * z + 1, torch.zeros(1, 1), sensitivity=Negative(), rtol=1e-12)
    assert z.item() == pytest.approx(2.0, abs=1e-7)
    (gradient,) = torch.autograd.grad(z.sum(), a)
    assert gradient.item() == pytest.approx(-2.0, abs=1e-7)
