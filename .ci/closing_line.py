"""Adds up the JUnit reports in a folder and prints one closing line, as a test runner does.

Usage: python closing_line.py reports

Exits with 1 where a test failed, or where there is no report at all.
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
    counts = totals(Path(sys.argv[1]))
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return int(counts["failed"] > 0 or not sum(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
