"""The names of the methods, one each."""

from __future__ import annotations

from collections.abc import Callable

from dyn_numerics.by_name import by_name
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.steppers.adams_bashforth import AdamsBashforth
from dyn_numerics.ode.steppers.adams_moulton import AdamsMoulton
from dyn_numerics.ode.steppers.asynchronous_leapfrog import AsynchronousLeapfrog
from dyn_numerics.ode.steppers.diagonally_implicit_methods import (
    ImplicitEuler,
    KenCarp4,
    Kvaerno3,
    Kvaerno5,
    Trapezoid,
)
from dyn_numerics.ode.steppers.explicit_methods import (
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    Heun,
    Midpoint,
    Ralston,
    RungeKutta4,
    Tsit5,
    Vern7,
)
from dyn_numerics.ode.steppers.reversible_heun import ReversibleHeun
from dyn_numerics.ode.steppers.rosenbrock_methods import Rodas5P, Rosenbrock23
from dyn_numerics.ode.steppers.stiffness_switching import StiffnessSwitching
from dyn_numerics.ode.steppers.symplectic_methods import Verlet, Yoshida4

__all__ = ["STEPPERS", "stepper"]

STEPPERS: dict[str, Callable[[], Stepper]] = {
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
    "implicit_euler": ImplicitEuler,
    "trapezoid": Trapezoid,
    "kvaerno3": Kvaerno3,
    "kvaerno5": Kvaerno5,
    "kencarp4": KenCarp4,
    "verlet": Verlet,
    "yoshida4": Yoshida4,
    "rosenbrock23": Rosenbrock23,
    "rodas5p": Rodas5P,
    "auto": StiffnessSwitching,
}
"""What `solver=` may be called, and what makes it."""


def stepper(solver: str | Stepper, name: str = "solver") -> Stepper:
    """Returns the method of that name, or the stepper itself.

    Args:
        solver: One of the names in `STEPPERS`, or a stepper.
        name: The argument's name, for messages.

    Raises:
        ValueError: If there is no such name; the message lists them and suggests the nearest.
        TypeError: If it is neither a name nor a stepper, or a stepper that does not say its order.
    """
    method = by_name(name, solver, STEPPERS, Stepper, "a name or a dyn_numerics.Stepper")
    if not isinstance(getattr(method, "order", None), int):
        raise TypeError(f"{name}: got {method} without an order, expected its class or __init__ to set one")
    return method
