"""Implicit models as plain modules."""

from dyn_models._version import __version__
from dyn_models.neural_ode import IntegralSolution, NeuralODE

__all__ = ["IntegralSolution", "NeuralODE", "__version__"]
