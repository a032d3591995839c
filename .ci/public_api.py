"""One line per public name and signature of a package, compared with the `api.txt` beside its `pyproject.toml`.

Usage: python public_api.py [--update] packages/dyn-numerics ...

A changed signature then shows in the diff of the change that makes it, and never by accident.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import griffe

from source_modules import public_modules

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_special(name: str) -> bool:
    """Whether `name` looks like `__call__`."""
    return name.startswith("__") and name.endswith("__")


def lines(owner: griffe.Module | griffe.Class) -> Iterator[str]:
    """Yields one line for each public member of a module or class, and of the classes in it."""
    for name, member in owner.members.items():
        path = f"{owner.path}.{name}"
        if not member.is_public or (is_special(name) and not (isinstance(member, griffe.Function))):
            continue
        if isinstance(member, griffe.Alias):
            yield f"{path} = {member.target_path}"
        elif isinstance(member, griffe.Class):
            bases = ", ".join(str(base) for base in member.bases)
            yield f"class {path}({bases})"
            yield from lines(member)
        elif isinstance(member, griffe.Function):
            yield member.signature(name=path)
        elif isinstance(member, griffe.Attribute):
            annotation = f": {member.annotation}" if member.annotation is not None else ""
            yield f"{path}{annotation}"


def public_api(package: Path, loader: griffe.GriffeLoader) -> list[str]:
    """Returns the lines of all public modules of the package in the folder `package`, by path."""
    loader.load(package.name.replace("-", "_"))
    modules = public_modules(package / "src")
    found = {line for module in modules for line in lines(loader.modules_collection[module])}
    return sorted(found, key=lambda line: line.removeprefix("class "))


def main() -> int:
    """Compares, or with `--update` rewrites; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--update", action="store_true", help="write api.txt instead of comparing with it")
    arguments = parser.parse_args()
    # One loader for all, so that a class finds its bases in the packages before its own.
    sources = [package / "src" for package in arguments.packages]
    loader = griffe.GriffeLoader(search_paths=sources, allow_inspection=False)
    changed = False
    for package in arguments.packages:
        record = package / "api.txt"
        now = public_api(package, loader)
        if arguments.update:
            record.write_text("".join(f"{line}\n" for line in now), encoding="utf-8")
            continue
        before = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        diff = list(difflib.unified_diff(before, now, str(record), "the source", lineterm="", n=0))
        changed = changed or bool(diff)
        print("\n".join(diff) if diff else f"{package.name}: {len(now)} public names, as recorded")
    if changed:
        print("\nThe public API changed. If it should, run `nox -s api -- --update` and say so in the changelog.")
    return int(changed)


if __name__ == "__main__":
    sys.exit(main())
