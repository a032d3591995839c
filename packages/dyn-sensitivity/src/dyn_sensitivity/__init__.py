"""Gradients of implicit models: interchangeable sensitivity algorithms for the handlers of dyn-numerics."""

from dyn_sensitivity._version import __version__
from dyn_sensitivity.compare_gradients import compare_gradients
from dyn_sensitivity.gradient_comparison import GradientComparison, MeasuredGradient
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.autograd import Autograd
from dyn_sensitivity.ode.backsolve import Backsolve
from dyn_sensitivity.ode.forward_mode import ForwardMode
from dyn_sensitivity.ode.gauss_quadrature import GaussQuadrature
from dyn_sensitivity.ode.integral_solution import IntegralSolution
from dyn_sensitivity.ode.interpolating import Interpolating
from dyn_sensitivity.ode.odeint import odeint
from dyn_sensitivity.ode.recursive_checkpoint import RecursiveCheckpoint
from dyn_sensitivity.ode.reversible import Reversible
from dyn_sensitivity.problem_survey import ProblemSurvey
from dyn_sensitivity.recommend import Recommendation, recommend
from dyn_sensitivity.root.fixed_point import fixed_point
from dyn_sensitivity.root.fixed_point_linear_solver import FixedPointLinearSolver
from dyn_sensitivity.root.implicit_differentiation import ImplicitDifferentiation
from dyn_sensitivity.root.jacobian_free import JacobianFree
from dyn_sensitivity.root.phantom import Phantom
from dyn_sensitivity.root.root_find import root_find
from dyn_sensitivity.root.root_sensitivity import RootSensitivity
from dyn_sensitivity.root.shine import Shine
from dyn_sensitivity.root.unrolled import Unrolled

__all__ = [
    "Autograd",
    "Backsolve",
    "FixedPointLinearSolver",
    "ForwardMode",
    "GaussQuadrature",
    "GradientComparison",
    "ImplicitDifferentiation",
    "IntegralSolution",
    "Interpolating",
    "JacobianFree",
    "MeasuredGradient",
    "Phantom",
    "ProblemSurvey",
    "Recommendation",
    "RecursiveCheckpoint",
    "Reversible",
    "RootSensitivity",
    "SensitivityAlgorithm",
    "Shine",
    "Unrolled",
    "__version__",
    "compare_gradients",
    "fixed_point",
    "odeint",
    "recommend",
    "root_find",
]
