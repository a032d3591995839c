"""Methods by name."""

import pytest

from dyn_numerics import (
    AdamsBashforth,
    AdamsMoulton,
    AsynchronousLeapfrog,
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    Heun,
    ImplicitEuler,
    KenCarp4,
    Kvaerno3,
    Kvaerno5,
    Midpoint,
    Ralston,
    ReversibleHeun,
    Rodas5P,
    Rosenbrock23,
    RungeKutta4,
    StiffnessSwitching,
    Trapezoid,
    Tsit5,
    Verlet,
    Vern7,
    Yoshida4,
)
from dyn_numerics.ode.steppers.by_name import STEPPERS, stepper

NAMES = {
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "ralston": Ralston,
    "rk4": RungeKutta4,
    "bosh3": Bosh3,
    "dopri5": Dopri5,
    "tsit5": Tsit5,
    "vern7": Vern7,
    "dopri8": Dopri8,
    "reversible_heun": ReversibleHeun,
    "alf": AsynchronousLeapfrog,
    "adams_bashforth": AdamsBashforth,
    "adams_moulton": AdamsMoulton,
    "verlet": Verlet,
    "yoshida4": Yoshida4,
    "rosenbrock23": Rosenbrock23,
    "rodas5p": Rodas5P,
    "implicit_euler": ImplicitEuler,
    "trapezoid": Trapezoid,
    "kvaerno3": Kvaerno3,
    "kvaerno5": Kvaerno5,
    "kencarp4": KenCarp4,
    "auto": StiffnessSwitching,
}


def test_there_are_no_other_names():
    assert set(STEPPERS) == set(NAMES)


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_name_gives_its_method(name, kind):
    assert type(stepper(name)) is kind
    assert stepper(name) is not stepper(name)


def test_a_stepper_stays_what_it_is():
    method = Tsit5()
    assert stepper(method) is method


@pytest.mark.parametrize(
    ("name", "nearest"), [("dorpi5", "dopri5"), ("Tsit5", "tsit5"), ("tsit", "tsit5"), ("RK4", "rk4"), ("hein", "heun")]
)
def test_unknown_name_lists_all_and_suggests_the_nearest(name, nearest):
    with pytest.raises(
        ValueError, match=f"solver: got {name!r}, expected one of .*; did you mean {nearest!r}"
    ) as error:
        stepper(name)
    assert all(known in str(error.value) for known in NAMES)


def test_name_far_from_all_gets_no_suggestion():
    with pytest.raises(ValueError, match="expected one of") as error:
        stepper("xyzzy")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("wrong", [None, 5, Tsit5])
def test_neither_a_name_nor_a_stepper(wrong):
    with pytest.raises(TypeError, match=r"solver: got .*, expected a name or a dyn_numerics\.Stepper"):
        stepper(wrong)
