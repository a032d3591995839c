"""Numerical methods for PyTorch: differential equations solved by modular, batched, trainable methods.

`odeint` solves an initial value problem. Methods (`Stepper`) and step-size control (`Controller`) are modules; a
Runge-Kutta method is a `ButcherTableau`. `root_find` solves systems of equations and `fixed_point` finds fixed points, every
sample by itself; methods (`RootStepper`) and line searches are modules.
"""

from dyn_numerics._version import __version__
from dyn_numerics.errors import (
    BracketError,
    CoupledSamplesError,
    DiscontinuityError,
    DivergenceError,
    EventError,
    MaxStepsError,
    NewtonError,
    NonFiniteError,
    PartedStatesError,
    SingularJacobianError,
    SolverError,
    StagnationError,
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
from dyn_numerics.ode.jacobians.banded_jacobian import BandedJacobian
from dyn_numerics.ode.jacobians.block_diagonal_jacobian import BlockDiagonalJacobian
from dyn_numerics.ode.jacobians.dense_jacobian import DenseJacobian
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian, Linearisation, Solved
from dyn_numerics.ode.jacobians.krylov_jacobian import KrylovJacobian
from dyn_numerics.ode.odeint import odeint
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.solution import Solution
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.split_field import SplitField
from dyn_numerics.ode.stepper import Step, Stepper, Work
from dyn_numerics.ode.steppers.adams_bashforth import AdamsBashforth
from dyn_numerics.ode.steppers.adams_moulton import AdamsMoulton
from dyn_numerics.ode.steppers.asynchronous_leapfrog import AsynchronousLeapfrog
from dyn_numerics.ode.steppers.diagonally_implicit_methods import ImplicitEuler, KenCarp4, Kvaerno3, Kvaerno5, Trapezoid
from dyn_numerics.ode.steppers.diagonally_implicit_runge_kutta import DiagonallyImplicitRungeKutta
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
from dyn_numerics.ode.steppers.reversible_heun import ReversibleHeun
from dyn_numerics.ode.steppers.reversible_runge_kutta import ReversibleRungeKutta
from dyn_numerics.ode.steppers.rosenbrock import Rosenbrock
from dyn_numerics.ode.steppers.rosenbrock_methods import Rodas5P, Rosenbrock23
from dyn_numerics.ode.steppers.runge_kutta2 import RungeKutta2
from dyn_numerics.ode.steppers.stiffness_switching import StiffnessSwitching
from dyn_numerics.ode.steppers.symplectic_methods import Verlet, Yoshida4
from dyn_numerics.ode.steps import Steps
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.tableaus.rosenbrock_tableau import RosenbrockTableau
from dyn_numerics.per_sample import PerSample
from dyn_numerics.root.anderson import Anderson
from dyn_numerics.root.bisection import Bisection
from dyn_numerics.root.broyden import Broyden
from dyn_numerics.root.chord import Chord
from dyn_numerics.root.fixed_point import fixed_point
from dyn_numerics.root.fixed_point_iteration import FixedPointIteration
from dyn_numerics.root.learned_line_search import LearnedLineSearch
from dyn_numerics.root.levenberg_marquardt import LevenbergMarquardt
from dyn_numerics.root.line_search import Armijo, LineSearch
from dyn_numerics.root.mixing_network import MixingNetwork
from dyn_numerics.root.neural_anderson import Mixture, NeuralAnderson
from dyn_numerics.root.newton import Newton
from dyn_numerics.root.newton_krylov import NewtonKrylov
from dyn_numerics.root.root_find import root_find
from dyn_numerics.root.root_solution import RootSolution
from dyn_numerics.root.root_statistics import RootStatistics
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import Context, Proposal, RootStepper
from dyn_numerics.root.termination import Termination
from dyn_numerics.root.training_losses import convergence_loss, initial_loss, mixing_loss
from dyn_numerics.root.unroll import Iterates, unroll
from dyn_numerics.seminorm import Seminorm
from dyn_numerics.statistics import Statistics
from dyn_numerics.status import Status

__all__ = [
    "GMRES",
    "AdamsBashforth",
    "AdamsMoulton",
    "Anderson",
    "Armijo",
    "AsynchronousLeapfrog",
    "BandedJacobian",
    "BiCGStab",
    "Bisection",
    "BlockDiagonalJacobian",
    "Bosh3",
    "BracketError",
    "Broyden",
    "ButcherTableau",
    "Callbacks",
    "Chord",
    "ConjugateGradient",
    "Context",
    "Controller",
    "CoupledSamplesError",
    "DenseJacobian",
    "DenseLU",
    "DenseSolution",
    "DiagonallyImplicitRungeKutta",
    "DiscontinuityError",
    "DivergenceError",
    "Dopri5",
    "Dopri8",
    "Euler",
    "Event",
    "EventError",
    "EventRecord",
    "ExplicitRungeKutta",
    "FieldJacobian",
    "FixedPointIteration",
    "FixedStep",
    "FunctionOperator",
    "Heun",
    "HyperStepper",
    "ImplicitEuler",
    "Internals",
    "Iterates",
    "JacobianOperator",
    "KenCarp4",
    "KrylovJacobian",
    "Kvaerno3",
    "Kvaerno5",
    "LearnedLineSearch",
    "LevenbergMarquardt",
    "LineSearch",
    "LinearOperator",
    "LinearSolution",
    "LinearSolver",
    "Linearisation",
    "MatrixOperator",
    "MaxStepsError",
    "Midpoint",
    "MixingNetwork",
    "Mixture",
    "NeuralAnderson",
    "Newton",
    "NewtonError",
    "NewtonKrylov",
    "NonFiniteError",
    "PIDController",
    "PartedStatesError",
    "PerSample",
    "Proposal",
    "Ralston",
    "ReversibleHeun",
    "ReversibleRungeKutta",
    "Rodas5P",
    "RootSolution",
    "RootStatistics",
    "RootStatus",
    "RootStepper",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "RungeKutta2",
    "RungeKutta4",
    "Save",
    "Seminorm",
    "SingularJacobianError",
    "Solution",
    "SolveContext",
    "Solved",
    "SolverError",
    "SplitField",
    "StagnationError",
    "Statistics",
    "Status",
    "SteadyState",
    "Step",
    "StepUnderflowError",
    "Stepper",
    "Steps",
    "StiffnessError",
    "StiffnessSwitching",
    "StopAt",
    "Termination",
    "Trapezoid",
    "Tsit5",
    "Verdict",
    "Verlet",
    "Vern7",
    "Work",
    "Yoshida4",
    "__version__",
    "convergence_loss",
    "fixed_point",
    "initial_loss",
    "mixing_loss",
    "odeint",
    "root_find",
    "unroll",
]
