"""Checks what no other check reads in Markdown: blocks that would not be run, and links of README files.

Usage: python markdown_pages.py

A block of Python is run where its fence says ```` ```python ````, and where a page of the documentation says that it is
executed; ```` ```py ```` and ```` ```pycon ```` look alike and are not. A README has no site that checks its links.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^ *(?:```+|~~~+) *\{?\.?(py.*)$", flags=re.MULTILINE | re.IGNORECASE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def problems() -> Iterator[str]:
    """Yields a sentence for each block that would not run and each link that leads nowhere."""
    readmes = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]
    for page in [*readmes, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        name, text = page.relative_to(ROOT), page.read_text(encoding="utf-8")
        for block in FENCE.findall(text):
            if block.strip() != "python" and not (name.parts[0] == "docs" and block.startswith("python exec=")):
                yield f"{name}: the block ```{block} is not run, expected ```python"
        if page in readmes:
            for link in LINK.findall(text):
                if "://" not in link and not (page.parent / link).exists():
                    yield f"{name}: the link to {link} leads nowhere"


def main() -> int:
    """Prints the problems; returns the exit status."""
    found = list(problems())
    print("\n".join(found) or "every block of Python is run, every link of a README leads somewhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
