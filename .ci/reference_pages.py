"""Checks that every public module has its page under docs/reference, and every page there its module.

Usage: python reference_pages.py

The page of `dyn_numerics.ode.odeint` is `docs/reference/dyn_numerics/ode/odeint.md` and holds `::: dyn_numerics.ode.odeint`.
A package whose `__init__.py` offers no names needs none: its modules have theirs. One that does lists them on its page.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from source_modules import public_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def offered_names(source: Path) -> set[str]:
    """Returns what the `__all__` of a source file lists, but for `__version__` and the like."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]:
            return {name for name in ast.literal_eval(node.value) if not name.startswith("_")}
    return set()


def expected_pages() -> dict[Path, set[str]]:
    """Returns the pages there should be, each with the lines or names that it must hold."""
    pages: dict[Path, set[str]] = {}
    for source in sorted(ROOT.glob("packages/*/src")):
        for module in public_modules(source):
            place = Path(*module.split("."))
            if not (source / place).is_dir():
                pages[REFERENCE / f"{place}.md"] = {f"::: {module}"}
            elif names := offered_names(source / place / "__init__.py"):
                pages[REFERENCE / place / "index.md"] = {f"::: {module}", *(f"`{name}`" for name in names)}
    return pages


def undocumented_attributes(source: Path) -> Iterator[str]:
    """Yields the names in the `__all__` of a source file that are data without a docstring: their page leaves them out."""
    body = ast.parse(source.read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        for target in targets:
            if isinstance(target, ast.Name) and target.id in offered_names(source) and not documented:
                yield target.id


def problems() -> Iterator[str]:
    """Yields a sentence for each page that is missing, incomplete or left over."""
    for source in sorted(ROOT.glob("packages/*/src/**/*.py")):
        for name in undocumented_attributes(source):
            yield f"{source.relative_to(ROOT)}: {name} is public and has no docstring under it"
    expected = expected_pages()
    for page, contents in expected.items():
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        missing = sorted(content for content in contents if content not in text)
        if missing:
            yield f"{page.relative_to(ROOT)} does not hold {', '.join(missing)}"
    for page in sorted(REFERENCE.glob("*/**/*.md")):
        if page not in expected:
            yield f"{page.relative_to(ROOT)} documents no public module"


def main() -> int:
    """Prints the problems; returns the exit status."""
    found = list(problems())
    print("\n".join(found) or "every public module has its reference page")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
