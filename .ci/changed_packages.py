"""Prints, as a JSON list, the packages that a change can break: those it touches and all that depend on them.

Usage: python changed_packages.py BASE

A change outside the packages and the documentation can break any of them, and so can one whose base is not known.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def dependents() -> dict[str, set[str]]:
    """Returns, for each package, the packages of this repository that declare it."""
    declared = {
        path.parent.name: tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
        for path in ROOT.glob("packages/*/pyproject.toml")
    }
    return {
        package: {
            other for other, needs in declared.items() if package in {re.split(r"[^\w.-]", need)[0] for need in needs}
        }
        for package in declared
    }


def changed_files(base: str) -> list[str] | None:
    """Returns the paths that differ from `base`, or None where git does not know it (a first, forced or manual run)."""
    if not base:
        return None
    # A file that moved counts where it was and where it is.
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [file for file in found.stdout.split("\0") if file] if found.returncode == 0 else None


def affected(files: list[str] | None, users: dict[str, set[str]]) -> set[str]:
    """Returns the packages that a change to `files` can break."""
    if files is None:
        return set(users)
    reached: set[str] = set()
    for file in files:
        folder, _, rest = file.partition("/")
        if folder == "packages" and rest.partition("/")[0] in users:
            reached.add(rest.partition("/")[0])
        elif folder != "docs" and not file.endswith(".md"):
            return set(users)
    while more := {user for package in reached for user in users[package]} - reached:
        reached |= more
    return reached


def main() -> None:
    """Reads the base revision from the command line and prints the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the revision to compare with")
    print(json.dumps(sorted(affected(changed_files(parser.parse_args().base), dependents()))))


if __name__ == "__main__":
    main()
