"""The command line: `dyn-bench list`, `dyn-bench run NAME ...`, `dyn-bench report`."""

from __future__ import annotations

import argparse
import sys
from collections import ChainMap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dyn_bench._version import __version__
from dyn_bench.benchmarks import BENCHMARKS
from dyn_bench.report import NoRecordError, read, table, write
from dyn_bench.reproductions import REPRODUCTIONS

__all__ = ["main"]

EXPERIMENTS = ChainMap(BENCHMARKS, REPRODUCTIONS)  # the last is listed first


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: The words after the program's name; those of the process when None.

    Returns:
        0 if all is well, 1 if a figure was missed or not measured, or there is nothing to report, 2 if the words were wrong.
    """
    parser = argparse.ArgumentParser(
        prog="dyn-bench", description="Reproductions of published results, and benchmarks."
    )
    parser.add_argument("--version", action="version", version=f"dyn-bench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the reproductions and benchmarks")
    run = commands.add_parser("run", help="run some, and leave figures and numbers in a folder")
    run.add_argument("names", nargs="+", metavar="NAME", help="a name that `list` shows")
    report = commands.add_parser("report", help="show the results in a folder")
    for command in (run, report):
        command.add_argument("--out", type=Path, default=Path("out"), help="the folder (default: out)")
    chosen = parser.parse_args(arguments)
    console = Console()
    if chosen.command == "list":
        return _list(console)
    if chosen.command == "report":
        return _report(console, chosen.out)
    return _run(console, chosen.names, chosen.out)


def _list(console: Console) -> int:
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("name", no_wrap=True)
    rows.add_column("kind", no_wrap=True)
    rows.add_column("what it shows")
    rows.add_column("source")
    for kind, experiments in (("reproduction", REPRODUCTIONS), ("benchmark", BENCHMARKS)):
        for name, experiment in experiments.items():
            rows.add_row(name, kind, experiment.summary, experiment.source)
    console.print(rows)
    return 0


def _refuse(sentence: str) -> int:
    Console(stderr=True).print(sentence, soft_wrap=True, highlight=False)
    return 2


def _report(console: Console, folder: Path) -> int:
    try:
        records = read(folder)
    except NoRecordError as error:
        return _refuse(str(error))
    if not records:
        console.print(f"{folder}: no results there; try dyn-bench run {next(iter(EXPERIMENTS))} --out {folder}")
        return 1
    console.print(table(records))
    return 0 if all(record.passed for record in records) else 1


def _run(console: Console, names: Sequence[str], folder: Path) -> int:
    for name in names:
        if name not in EXPERIMENTS:
            near = get_close_matches(name, EXPERIMENTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return _refuse(f"NAME: got {name!r}, expected one of {', '.join(EXPERIMENTS)}{hint}")
    try:  # before the work, which would be lost
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        return _refuse(f"--out: got {folder}, expected a folder that can be written to ({error.strerror})")
    records = []
    with Progress(console=console) as progress:
        for name in names:
            experiment = EXPERIMENTS[name]
            start = perf_counter()
            outcome = experiment.run(progress)
            records.append(write(experiment, outcome, perf_counter() - start, folder))
    console.print(table(records))
    console.print(f"Figures and numbers are in {folder}.")
    return 0 if all(record.passed for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
