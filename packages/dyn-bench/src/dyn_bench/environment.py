"""Where a figure was measured."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dyn_models
import dyn_numerics
import dyn_sensitivity
import dyn_zoo
from dyn_bench._version import __version__

__all__ = ["environment"]

PEERS = ("torchdiffeq", "torchode", "torchdeq", "diffrax", "jax", "scipy")


def environment() -> dict[str, Any]:
    """Describes Python, torch, the machine and the versions of the packages, ready for JSON.

    Example:
        >>> from dyn_bench.environment import environment
        >>> sorted(environment())
        ['cuda', 'machine', 'packages', 'processor', 'python', 'system', 'threads', 'torch']
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "packages": {
            "dyn-numerics": dyn_numerics.__version__,
            "dyn-sensitivity": dyn_sensitivity.__version__,
            "dyn-models": dyn_models.__version__,
            "dyn-zoo": dyn_zoo.__version__,
            "dyn-bench": __version__,
            **{peer: _version(peer) for peer in PEERS},
        },
    }


def _version(package: str) -> str | None:
    """Version of a package that may be missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Name of the processor, empty where the system does not tell."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
