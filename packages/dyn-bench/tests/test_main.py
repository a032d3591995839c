"""The command line, as a user calls it."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from matplotlib.figure import Figure

from dyn_bench.__main__ import main
from dyn_bench._version import __version__
from dyn_bench.experiment import Experiment, Measurement, Outcome
from dyn_bench.report import markdown, read, rows_as_markdown
from dyn_bench.reproductions import REPRODUCTIONS


@dataclass(frozen=True)
class Constant(Experiment):
    value: float = 1.0
    name: ClassVar[str] = "constant"
    summary: ClassVar[str] = "A constant."
    source: ClassVar[str] = "nowhere"

    def run(self, progress):
        if self.value is None:
            return Outcome([Measurement("constant", None, high=1.1, reason="no peer: pip install 'x[peers]'")], {})
        return Outcome([Measurement("constant", self.value, 0.9, 1.1)], {"empty": Figure()}, {"kept": [1, 2]})


@pytest.fixture
def constant(monkeypatch):
    def register(value):
        monkeypatch.setitem(REPRODUCTIONS, "constant", Constant(value))

    return register


def test_list_names_every_experiment_and_its_kind(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {
        "reproduction": ("solver-interpolation", "moons", "density"),
        "benchmark": ("overhead", "compiled", "work-precision", "root-finding"),
    }
    for kind, listed in names.items():
        assert [name for name in listed if not any(name in line and kind in line for line in lines)] == []


def test_an_unknown_name_is_answered_with_the_names_and_the_nearest(capsys, tmp_path):
    assert main(["run", "moon", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "did you mean 'moons'" in printed
    assert "solver-interpolation, moons, density, overhead, compiled, work-precision" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (0.89, 1), (1.11, 1), (float("nan"), 1)])
def test_a_missed_figure_fails_on_either_side(constant, tmp_path, capsys, value, code):
    constant(value)
    assert main(["run", "constant", "--out", str(tmp_path)]) == code
    assert ("reached" in capsys.readouterr().out) == (code == 0)
    assert main(["report", "--out", str(tmp_path)]) == code


def test_a_run_leaves_numbers_and_pictures(constant, tmp_path):
    constant(1.0)
    main(["run", "constant", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "constant.json").read_text())
    assert document["measurements"] == [{"name": "constant", "value": 1.0, "low": 0.9, "high": 1.1}]
    assert document["passed"] is True
    assert document["settings"] == {"value": 1.0}
    assert document["records"] == {"kept": [1, 2]}
    assert document["environment"]["threads"] == 1
    assert set(document["environment"]["packages"]) >= {"dyn-numerics", "dyn-bench"}
    assert (tmp_path / document["pictures"][0]).read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_was_not_measured_is_no_success_and_says_why(constant, tmp_path, capsys):
    constant(None)
    assert main(["run", "constant", "--out", str(tmp_path)]) == 1
    document = json.loads((tmp_path / "constant.json").read_text())
    reason = "no peer: pip install 'x[peers]'"
    assert document["measurements"] == [{"name": "constant", "value": None, "low": None, "high": 1.1, "reason": reason}]
    assert document["passed"] is False
    capsys.readouterr()
    assert main(["report", "--out", str(tmp_path)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "not measured" in printed
    assert "'x[peers]'" in printed  # brackets are no markup
    assert "missed" not in printed


def test_markdown_holds_every_figure_and_where_it_was_measured(constant, tmp_path):
    constant(1.11)
    main(["run", "constant", "--out", str(tmp_path)])
    (record,) = read(tmp_path)
    lines = markdown(record).splitlines()
    assert lines[2] == "| constant | 1.11 | 0.9 … 1.1 | missed, 0.01 above 1.1 |"
    assert f"torch {torch.__version__}" in lines[-1]
    assert f"dyn-bench {__version__}" in lines[-1]
    assert "None" not in lines[-1]


def test_rows_in_markdown_have_the_columns_of_the_first():
    rows = {"one": {"a": 1, "b": 2}, "two": {"b": "x"}}
    assert rows_as_markdown("name", rows).splitlines() == [
        "| name | a | b |",
        "|---|---|---|",
        "| one | 1 | 2 |",
        "| two |  | x |",
    ]


@pytest.mark.parametrize("out", ["a-file", "a-file/below"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(constant, tmp_path, capsys, out, monkeypatch):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr(Constant, "run", lambda *_: pytest.fail("it ran"))
    constant(1.0)
    assert main(["run", "constant", "--out", str(tmp_path / out)]) == 2
    assert f"--out: got {tmp_path / out}, expected a folder that can be written to" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", "xx", "[]", '{"passed": true, "measurements": [{}]}'])
def test_a_report_names_a_file_that_is_no_result(tmp_path, capsys, content):
    (tmp_path / "other.json").write_text(content)
    assert main(["report", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / 'other.json'}: holds no result of dyn-bench" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"dyn-bench {__version__}\n"


def test_a_report_of_nothing_says_so(tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path)]) == 1
    assert "no results" in " ".join(capsys.readouterr().out.split())  # rich wraps long paths
