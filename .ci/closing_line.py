"""Adds up the JUnit reports in a folder and prints one closing line, as a test runner does.

Usage: python closing_line.py reports packages/dyn-numerics ...

Exits with 1 where a test failed, or where a package has no report of its tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def totals(folder: Path) -> dict[str, int]:
    """Returns how many tests passed, failed (errors among them) and were skipped, over all reports in `folder`."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for report in sorted(folder.glob("*.xml")):
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            failed, errors, skipped = (int(suite.get(key, 0)) for key in ("failures", "errors", "skipped"))
            counts["failed"] += failed + errors
            counts["skipped"] += skipped
            counts["passed"] += int(suite.get("tests", 0)) - failed - errors - skipped
    return counts


def main() -> int:
    """Prints the line; returns the exit status."""
    folder, *packages = map(Path, sys.argv[1:])
    missing = [package.name for package in packages if not (folder / f"tests-{package.name}.xml").exists()]
    if missing:
        print(f"No report of the tests of {', '.join(missing)}.")
    counts = totals(folder)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return int(bool(missing) or counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
