"""Problems with known answers, and published results run again from one command line."""

from dyn_bench._version import __version__

__all__ = ["__version__"]
