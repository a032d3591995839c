"""Imports every module of an installed package: what one of them needs and the package does not declare is missing.

Usage: python import_all.py dyn_numerics
"""

from __future__ import annotations

import importlib
import pkgutil
import sys


def import_all(name: str) -> int:
    """Imports the package `name` with all its modules but `__main__`; returns how many."""
    package = importlib.import_module(name)
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, prefix=f"{name}.")]
    imported = [importlib.import_module(module) for module in modules if not module.endswith(".__main__")]
    return 1 + len(imported)


if __name__ == "__main__":
    print(f"{sys.argv[1]}: {import_all(sys.argv[1])} modules imported")
