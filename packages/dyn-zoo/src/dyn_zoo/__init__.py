"""Implicit models that others can build on, and the toy data to try them on."""

from dyn_zoo._version import __version__
from dyn_zoo.flows.cnf import CNF

__all__ = ["CNF", "__version__"]
