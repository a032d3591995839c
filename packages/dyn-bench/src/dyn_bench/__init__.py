"""Problems with known answers, published results run again, and benchmarks, from one command line."""

from dyn_bench._version import __version__

__all__ = ["__version__"]
