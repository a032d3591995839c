"""Solves side by side, without a solver."""

import pytest
import torch

from dyn_bench.protocols import comparison as module
from dyn_bench.protocols.comparison import Comparison, Goal, solves_as_markdown
from dyn_bench.protocols.solve import Solve
from dyn_bench.protocols.timing import Timings
from dyn_bench.protocols.unavailable import UnavailableError


def absent():
    raise UnavailableError("no peer")


@pytest.fixture
def compared(monkeypatch):
    timed = []

    def measure(works, rounds):
        timed.append(list(works))
        return Timings({"quick": [1.0, 0.5, 2.0], "slow": [4.0, 2.0, 8.0]})

    monkeypatch.setattr(module, "measure", measure)
    comparison = Comparison("problem", torch.tensor([1.0, 2.0]))
    comparison.enter("quick", lambda: Solve(lambda: 7, lambda result: torch.tensor([1.0, 2.5]), lambda result: result))
    comparison.enter("slow", lambda: Solve(lambda: None))
    comparison.enter("absent", absent)
    goals = [Goal("quick", "slow", 0.5), Goal("slow", "quick", 0.5), Goal("quick", "absent", 0.5)]
    return comparison, comparison.measure(goals, range(3)), timed


def test_ratios_against_goals(compared):
    _, (quick, slow, _), timed = compared
    assert (quick.name, quick.value, quick.passed) == ("problem: quick / slow", 0.25, True)
    assert (slow.value, slow.passed) == (4.0, False)
    assert timed == [["quick", "slow"]]


def test_a_goal_without_its_peer_stays_and_says_so(compared):
    comparison, (*_, absent), _ = compared
    assert absent.name == "problem: quick / absent"
    assert absent.verdict == "not measured (no peer)"
    assert comparison.first_call("absent").verdict == "not measured (no peer)"


def test_records(compared):
    comparison, _, _ = compared
    assert set(comparison.records) == {"quick", "slow"}
    record = comparison.records["quick"]
    assert 0 <= record.pop("first_call_s") < 10
    assert record == {"evaluations": 7, "largest_error": 0.5, "median_s": 1.0, "fastest_s": 0.5}
    assert comparison.records["slow"]["largest_error"] is None


def test_an_error_that_is_none_of_availability_is_raised():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Comparison("problem", torch.zeros(1)).enter("broken", broken)


def test_solves_in_markdown(compared):
    comparison, _, _ = compared
    lines = solves_as_markdown({"problem": comparison.records, "kept": [1, 2], "counts": {"a": 1}}).splitlines()
    assert lines[2:] == ["| problem | quick | 1000.00 | 7 | 5.0e-01 |", "| problem | slow | 4000.00 |  |  |"]
