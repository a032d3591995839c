"""Published results, each in a file, by their names on the command line."""

from dyn_bench.experiment import Experiment
from dyn_bench.reproductions.density import Density
from dyn_bench.reproductions.moons import MoonsClassifier
from dyn_bench.reproductions.solver_interpolation import SolverInterpolation

__all__ = ["REPRODUCTIONS"]

REPRODUCTIONS: dict[str, Experiment] = {
    reproduction.name: reproduction for reproduction in (SolverInterpolation(), MoonsClassifier(), Density())
}
"""The reproductions, with their default settings, by name."""
