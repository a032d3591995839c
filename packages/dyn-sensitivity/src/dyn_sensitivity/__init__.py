"""Gradients of implicit models: interchangeable sensitivity algorithms for the handlers of dyn-numerics."""

from dyn_sensitivity._version import __version__
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

__all__ = [
    "Autograd",
    "Backsolve",
    "ForwardMode",
    "GaussQuadrature",
    "IntegralSolution",
    "Interpolating",
    "RecursiveCheckpoint",
    "Reversible",
    "SensitivityAlgorithm",
    "__version__",
    "odeint",
]
