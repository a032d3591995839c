"""Prints the package that a release tag names, and fails where the tag is not the version that the package carries.

Usage: python tagged_package.py dyn-numerics-v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(package: str) -> str:
    """Returns the version in the package's `_version.py`."""
    file = ROOT / "packages" / package / "src" / package.replace("-", "_") / "_version.py"
    (found,) = re.findall(r'^__version__ = "(.+)"$', file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return str(found)


def tagged_package(tag: str) -> str:
    """Returns the package of `tag`; exits with a sentence where the tag does not fit."""
    package, _, tagged = tag.rpartition("-v")
    known = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
    if package not in known:
        sys.exit(f"The tag {tag!r} names no package; there are {', '.join(known)}.")
    if tagged != version(package):
        sys.exit(f"The tag {tag!r} asks for {tagged!r}, but {package} carries {version(package)!r}.")
    return package


if __name__ == "__main__":
    print(tagged_package(sys.argv[1]))
