"""Results on disk, and tables of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dyn_bench.environment import environment
from dyn_bench.reproduction import Measurement, Outcome, Reproduction

__all__ = ["NoRecordError", "Record", "read", "table", "write"]


class NoRecordError(ValueError):
    """A file among the results is none."""


@dataclass(frozen=True)
class Record:
    """One result as it lies on disk.

    Attributes:
        name: Name of the reproduction.
        source: Where the result was published.
        measurements: The figures.
        seconds: How long it took.
        settings: The reproduction's settings.
        records: What else it kept.
        pictures: File names of what it drew.
        environment: Where it ran.
    """

    name: str
    source: str
    measurements: list[Measurement]
    seconds: float
    settings: dict[str, Any]
    records: dict[str, Any]
    pictures: list[str]
    environment: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every figure agrees with what was published."""
        return all(measurement.passed for measurement in self.measurements)


def write(reproduction: Reproduction, outcome: Outcome, seconds: float, folder: Path) -> Record:
    """Writes the figures of a run as `<name>.json` and its pictures beside it.

    Args:
        reproduction: What ran.
        outcome: What came of it.
        seconds: How long it took.
        folder: Where to; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for part, figure in outcome.pictures.items():
        pictures.append(f"{reproduction.name}-{part}.png")
        figure.savefig(folder / pictures[-1], dpi=150)
    record = Record(
        name=reproduction.name,
        source=reproduction.source,
        measurements=outcome.measurements,
        seconds=seconds,
        settings=vars(reproduction).copy(),
        records=outcome.records,
        pictures=pictures,
        environment=environment(),
    )
    document = asdict(record)
    for measurement in document["measurements"]:
        for bound in ("low", "high"):
            measurement[bound] = measurement[bound] if isfinite(measurement[bound]) else None
    document["passed"] = record.passed
    (folder / f"{record.name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return record


def read(folder: Path) -> list[Record]:
    """Reads all results in a folder, by name.

    Raises:
        NoRecordError: If a JSON file there is something else.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Record:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document.pop("passed")
        measurements = [
            Measurement(**{key: value for key, value in m.items() if value is not None})
            for m in document.pop("measurements")
        ]
        return Record(measurements=measurements, **document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoRecordError(
            f"{path}: holds no result of dyn-bench; move it elsewhere, or choose another --out"
        ) from error


def table(records: Iterable[Record]) -> Table:
    """Lays results out, a line for every figure."""
    rows = Table(title="Reproductions", box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("reproduction", no_wrap=True)  # what fits into 80 columns
    for name in ("figure", "measured", "expected", "", "time"):
        rows.add_column(name)
    for record in records:
        for i, m in enumerate(record.measurements):
            rows.add_row(
                record.name if i == 0 else "",
                m.name,
                f"{m.value:.4f}",
                f"{m.low:.4g} … {m.high:.4g}",
                "[green]reached[/]" if m.passed else f"[red]missed: {m.miss}[/]",
                f"{record.seconds:.0f} s" if i == 0 else "",
            )
    return rows
