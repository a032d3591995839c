"""Where a figure was measured."""

from __future__ import annotations

import platform
from typing import Any

import torch

import dyn_models
import dyn_numerics
import dyn_sensitivity
import dyn_zoo
from dyn_bench._version import __version__

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Describes Python, torch, the machine and the versions of the packages, ready for JSON.

    Example:
        >>> from dyn_bench.environment import environment
        >>> sorted(environment())
        ['cuda', 'machine', 'packages', 'python', 'system', 'threads', 'torch']
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "packages": {
            "dyn-numerics": dyn_numerics.__version__,
            "dyn-sensitivity": dyn_sensitivity.__version__,
            "dyn-models": dyn_models.__version__,
            "dyn-zoo": dyn_zoo.__version__,
            "dyn-bench": __version__,
        },
    }
