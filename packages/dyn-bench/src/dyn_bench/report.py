"""Results on disk, and tables of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dyn_bench.environment import environment
from dyn_bench.experiment import Experiment, Measurement, Outcome

__all__ = ["NoRecordError", "Record", "markdown", "read", "rows_as_markdown", "table", "write"]

_COLOURS = {"reached": "green", "missed,": "red", "not": "yellow"}  # by the first word of a verdict


class NoRecordError(ValueError):
    """A file among the results is none."""


@dataclass(frozen=True)
class Record:
    """One result as it lies on disk.

    Attributes:
        name: Name of the experiment.
        source: Where the expected figures come from.
        measurements: The figures.
        seconds: How long it took.
        settings: The experiment's settings.
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
        """Whether every figure was measured and lies where it is expected."""
        return all(measurement.passed for measurement in self.measurements)


def write(experiment: Experiment, outcome: Outcome, seconds: float, folder: Path) -> Record:
    """Writes the figures of a run as `<name>.json` and its pictures beside it.

    Args:
        experiment: What ran.
        outcome: What came of it.
        seconds: How long it took.
        folder: Where to; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for part, figure in outcome.pictures.items():
        pictures.append(f"{experiment.name}-{part}.png")
        figure.savefig(folder / pictures[-1], dpi=150)
    record = Record(
        name=experiment.name,
        source=experiment.source,
        measurements=outcome.measurements,
        seconds=seconds,
        settings=vars(experiment).copy(),
        records=outcome.records,
        pictures=pictures,
        environment=environment(),
    )
    document = asdict(record)
    for measurement in document["measurements"]:
        for bound in ("low", "high"):
            measurement[bound] = measurement[bound] if isfinite(measurement[bound]) else None
        if measurement["reason"] is None:
            del measurement["reason"]
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
    """Lays results out, a line for every figure, under the name of their experiment and the seconds that it took."""
    rows = Table(title="Results", box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("figure", overflow="fold")
    rows.add_column("measured", no_wrap=True)
    rows.add_column("expected", no_wrap=True)
    rows.add_column("")
    for record in records:
        rows.add_section()
        rows.add_row(f"[bold]{escape(record.name)}[/], {record.seconds:.0f} s")
        for m in record.measurements:
            colour = _COLOURS[m.verdict.split()[0]]
            rows.add_row(escape(m.name), _number(m), m.expected, f"[{colour}]{escape(m.verdict)}[/]")
    return rows


def markdown(record: Record) -> str:
    """Lays a result out in Markdown: a table with a line for every figure, and under it where it was measured."""
    lines = ["| figure | measured | expected | |", "|---|---|---|---|"]
    for m in record.measurements:
        lines.append(f"| {m.name} | {_number(m)} | {m.expected} | {m.verdict} |")
    place = record.environment
    versions = {"Python": place["python"], "torch": place["torch"], **place["packages"]}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    machine = f"{place['processor'] or place['machine']}, {place['system']}"
    return "\n".join([*lines, "", f"Measured in {record.seconds:.0f} s on one thread of: {machine}. {listed}."])


def rows_as_markdown(head: str, rows: Mapping[str, Mapping[str, object]]) -> str:
    """Lays out rows in Markdown.

    Args:
        head: What the names of the rows are.
        rows: Each row by its name: what stands in its columns, by their names, in the order of the first row.
    """
    columns = list(next(iter(rows.values())))
    lines = [f"| {' | '.join([head, *columns])} |", "|---" * (1 + len(columns)) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(row.get(column, '')) for column in columns)} |" for name, row in rows.items()
    ]
    return "\n".join(lines)


def _number(measurement: Measurement) -> str:
    return "–" if measurement.value is None else f"{measurement.value:.4g}"
