"""Numerical methods for PyTorch: differential equations solved by modular, batched, trainable methods.

`odeint` solves an initial value problem. Methods (`Stepper`) and step-size control (`Controller`) are modules; a
Runge-Kutta method is a `ButcherTableau`.
"""

from dyn_numerics._version import __version__
from dyn_numerics.errors import (
    DiscontinuityError,
    EventError,
    MaxStepsError,
    NonFiniteError,
    SolverError,
    StepUnderflowError,
    StiffnessError,
)
from dyn_numerics.linear.bicgstab import BiCGStab
from dyn_numerics.linear.conjugate_gradient import ConjugateGradient
from dyn_numerics.linear.dense_lu import DenseLU
from dyn_numerics.linear.function_operator import FunctionOperator
from dyn_numerics.linear.gmres import GMRES
from dyn_numerics.linear.jacobian_operator import JacobianOperator
from dyn_numerics.linear.linear_solver import LinearSolution, LinearSolver
from dyn_numerics.linear.matrix_operator import MatrixOperator
from dyn_numerics.linear.operator import LinearOperator
from dyn_numerics.ode.callbacks import Callbacks
from dyn_numerics.ode.controllers.controller import Controller, Verdict
from dyn_numerics.ode.controllers.fixed_step import FixedStep
from dyn_numerics.ode.controllers.pid import PIDController
from dyn_numerics.ode.controllers.stop_at import StopAt
from dyn_numerics.ode.dense import DenseSolution
from dyn_numerics.ode.events.event import Event
from dyn_numerics.ode.events.event_record import EventRecord
from dyn_numerics.ode.events.steady_state import SteadyState
from dyn_numerics.ode.internals import Internals
from dyn_numerics.ode.odeint import odeint
from dyn_numerics.ode.per_sample import PerSample
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.stepper import Step, Stepper
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
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.steppers.hyper import HyperStepper
from dyn_numerics.ode.steppers.runge_kutta2 import RungeKutta2
from dyn_numerics.ode.steps import Steps
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.seminorm import Seminorm
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status

__all__ = [
    "GMRES",
    "BiCGStab",
    "Bosh3",
    "ButcherTableau",
    "Callbacks",
    "ConjugateGradient",
    "Controller",
    "DenseLU",
    "DenseSolution",
    "DiscontinuityError",
    "Dopri5",
    "Dopri8",
    "Euler",
    "Event",
    "EventError",
    "EventRecord",
    "ExplicitRungeKutta",
    "FixedStep",
    "FunctionOperator",
    "Heun",
    "HyperStepper",
    "Internals",
    "JacobianOperator",
    "LinearOperator",
    "LinearSolution",
    "LinearSolver",
    "MatrixOperator",
    "MaxStepsError",
    "Midpoint",
    "NonFiniteError",
    "PIDController",
    "PerSample",
    "Ralston",
    "RungeKutta2",
    "RungeKutta4",
    "Save",
    "Seminorm",
    "Solution",
    "SolverError",
    "Statistics",
    "Status",
    "SteadyState",
    "Step",
    "StepUnderflowError",
    "Stepper",
    "Steps",
    "StiffnessError",
    "StopAt",
    "Tsit5",
    "Verdict",
    "Vern7",
    "__version__",
    "odeint",
]
