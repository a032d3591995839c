"""The public modules of a package, read from its source tree without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def public_modules(source: Path) -> Iterator[str]:
    """Yields the dotted names of the modules under `source` that have no leading underscore anywhere.

    Args:
        source: The `src` folder of a package.
    """
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts):
            yield ".".join(parts)
