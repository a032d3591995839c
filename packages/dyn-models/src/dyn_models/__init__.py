"""Implicit models as plain modules."""

from dyn_models._version import __version__
from dyn_models.neural_ode import NeuralODE
from dyn_sensitivity import IntegralSolution

__all__ = ["IntegralSolution", "NeuralODE", "__version__"]
