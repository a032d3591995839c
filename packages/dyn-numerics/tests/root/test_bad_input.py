"""Bad input is refused at once, by name, with what was expected."""

import math

import pytest
import torch

from dyn_numerics import (
    Anderson,
    Armijo,
    Broyden,
    Chord,
    FixedPointIteration,
    Newton,
    PerSample,
    Termination,
    fixed_point,
    root_find,
)

D = torch.float64
Z0 = torch.ones(2, 3, dtype=D)


def g(z, *args):
    return z**2 - 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"z0": [1.0]}, TypeError, r"z0: got a float, expected a tensor or a pytree"),
        ({"z0": torch.ones(2, dtype=torch.int64)}, TypeError, r"z0: got dtype torch.int64"),
        ({"z0": torch.tensor(1.0)}, ValueError, r"z0: got leaves of shapes \[\[\]\].*try z0.unsqueeze\(0\)"),
        ({"z0": (torch.ones(2, 1), torch.ones(3, 1))}, ValueError, r"z0: got leaves .* lead with the same batch"),
        ({"z0": torch.tensor([[math.nan]])}, ValueError, r"z0: got values that are NaN or infinite"),
        ({"g": 3}, TypeError, r"g: got a int, expected a function or module f\(z, \*args\)"),
        (
            {"g": lambda a, b: a},
            TypeError,
            r"g: got a function with the signature \(a, b\), expected one that takes \(z",
        ),
        ({"g": lambda z: z[:, :2]}, ValueError, r"g: returned shape \[2, 2\], expected \[2, 3\]"),
        ({"g": lambda z: z.float()}, TypeError, r"g: returned dtype torch.float32, expected torch.float64"),
        ({"g": lambda z: (z, z)}, TypeError, r"g: returned a tuple, expected a tensor"),
        ({"g": lambda z: z.mul_(2)}, ValueError, r"g: changed the state z in place, .* z\.clone\(\)"),
        ({"solver": "newtn"}, ValueError, r"solver: got 'newtn', expected one of newton.*did you mean 'newton'\?"),
        ({"solver": 3}, TypeError, r"solver: got a int, expected a name or a dyn_numerics.RootStepper"),
        ({"solver": Newton}, TypeError, r"solver: got the class Newton, expected a name or a dyn_numerics.RootStepper"),
        ({"rtol": 1e-17}, ValueError, r"rtol: got 1e-17, expected at least 4 eps, 8.88e-16 in torch.float64"),
        ({"rtol": 0.0}, ValueError, r"rtol: got 0.0, expected at least 4 eps"),
        ({"rtol": math.nan}, ValueError, r"rtol: got nan, expected at least 4 eps"),
        ({"rtol": 1e-7, "z0": Z0.float()}, ValueError, r"rtol: got 1e-07, expected at least 4 eps, 4.77e-07"),
        ({"rtol": torch.tensor([1e-3, 1e-17])}, ValueError, r"rtol: got values below 8.88e-16 or NaN"),
        ({"rtol": torch.ones(3)}, ValueError, r"rtol: got dtype torch.float32, shape \[3\], expected .*\[\] or \[2\]"),
        ({"rtol": "small"}, TypeError, r"rtol: got a str, expected at least 4 eps"),
        ({"atol": -1.0}, ValueError, r"atol: got -1.0, expected a number or tensor that is not negative"),
        ({"max_steps": 0}, ValueError, r"max_steps: got 0, expected a positive integer"),
        ({"max_steps": 1.5}, ValueError, r"max_steps: got 1.5, expected a positive integer"),
        ({"line_search": "wolfe"}, ValueError, r"line_search: got 'wolfe', expected 'armijo'"),
        ({"line_search": 1}, TypeError, r"line_search: got a int, expected 'armijo'"),
        ({"line_search": Armijo}, TypeError, r"line_search: got the class Armijo, expected 'armijo'"),
        ({"args": torch.ones(2)}, TypeError, r"args: got a Tensor, expected a tuple of arguments"),
        (
            {"args": (PerSample(torch.ones(3)),)},
            ValueError,
            r"args: got a PerSample of shape \[3\], expected .*batch 2",
        ),
        ({"termination": 3}, TypeError, r"termination: got a int, expected a dyn_numerics.Termination"),
        ({"solver": Newton(jac=lambda z: z)}, ValueError, r"jac: returned shape \[2, 3\], expected \[2, 3, 3\]"),
        ({"solver": Newton(jac=lambda z: 1.0)}, TypeError, r"jac: returned a float, expected a tensor \[2, 3, 3\]"),
        (
            {"solver": Newton(jac=lambda z: torch.ones(2, 3, 3, dtype=torch.float16))},
            TypeError,
            r"jac: returned dtype torch.float16, expected torch.float",
        ),
        (
            {"solver": Newton(jac=lambda z: z), "z0": (Z0,), "g": lambda z: z},
            TypeError,
            r"jac: got one with a z0 that is a pytree",
        ),
    ],
)
def test_arguments(options, error, message):
    with pytest.raises(error, match=message):
        root_find(**{"g": g, "z0": Z0, **options})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Newton(jac=3), TypeError, r"jac: got a int, expected a function jac\(z, \*args\)"),
        (lambda: Chord(every=0), ValueError, r"every: got 0, expected a positive integer"),
        (lambda: Broyden(memory=1), ValueError, r"memory: got 1, expected at least 2"),
        (lambda: Broyden(update="ugly"), ValueError, r"update: got 'ugly', expected 'good' or 'bad'"),
        (lambda: Broyden(jacobian=0), ValueError, r"jacobian: got 0, expected a number other than 0"),
        (lambda: Broyden(jacobian="dense"), ValueError, r"jacobian: got 'dense', expected a number"),
        (lambda: Broyden(jacobian=None), TypeError, r"jacobian: got a NoneType, expected a number"),
        (lambda: Anderson(m=0), ValueError, r"m: got 0, expected a positive integer"),
        (lambda: Anderson(damping=0.0), ValueError, r"damping: got 0.0, expected a positive number"),
        (lambda: FixedPointIteration("1"), TypeError, r"damping: got a str, expected a positive number"),
        (lambda: Armijo(decrease=1.0), ValueError, r"decrease: got 1.0, expected a number between 0 and 1"),
        (lambda: Armijo(max_trials=0), ValueError, r"max_trials: got 0, expected a positive integer"),
        (lambda: Termination(step_rtol=0.0), ValueError, r"step_rtol: got 0.0, expected a positive number"),
        (lambda: Termination(patience=0), ValueError, r"patience: got 0, expected a positive integer"),
        (lambda: Termination(divergence=-1.0), ValueError, r"divergence: got -1.0, expected a positive number"),
    ],
)
def test_constructors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_function_that_returns_the_same_memory_twice():
    buffer = torch.empty(2, 3, dtype=D)

    def g(z):
        buffer.copy_(z**2 - 2)
        return buffer

    with pytest.raises(ValueError, match="g: wrote into the tensor that it returned before"):
        root_find(g, Z0, solver="anderson")


def test_names_of_functions_in_messages():
    with pytest.raises(ValueError, match=r"h: returned shape"):
        fixed_point(lambda z: z[:1], Z0)


def test_compact_under_transforms():
    with pytest.raises(ValueError, match=r"compact: got True inside torch.func"):
        torch.func.vmap(lambda z: root_find(g, z, compact=True).z)(Z0.unsqueeze(0))
