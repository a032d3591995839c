"""Solves side by side, without a solver."""

import pytest
import torch
from rich.progress import Progress

from dyn_bench.protocols import comparison as module
from dyn_bench.protocols.comparison import Comparison, Goal, solves_as_markdown
from dyn_bench.protocols.solve import Solve
from dyn_bench.protocols.timing import Timings
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_numerics import SolverError, odeint


@pytest.fixture
def solver_error():
    with pytest.raises(SolverError) as caught:
        odeint(lambda t, x: x / 0, torch.ones(1), [0.0, 1.0])
    return caught.value


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


def test_evaluations_against_goals():
    comparison = Comparison("problem", torch.zeros(1))
    for name, calls in (("few", 3), ("many", 12)):
        comparison.enter(name, lambda calls=calls: Solve(lambda: calls, None, lambda result: result))
    comparison.enter("absent", absent)
    few, many, missing = (
        comparison.evaluations(goal)
        for goal in (Goal("few", "many", 0.5), Goal("many", "few", 0.5), Goal("few", "absent", 0.5))
    )
    assert (few.name, few.value, few.high) == ("problem: few / many, evaluations", 0.25, 0.5)
    assert (many.value, many.passed) == (4.0, False)
    assert missing.verdict == "not measured (no peer)"


def test_records(compared):
    comparison, _, _ = compared
    assert set(comparison.records) == {"quick", "slow"}
    record = comparison.records["quick"]
    assert 0 <= record.pop("first_call_s") < 10
    assert record == {"evaluations": 7, "largest_error": 0.5, "median_s": 1.0, "fastest_s": 0.5}
    assert comparison.records["slow"]["largest_error"] is None


def test_what_else_a_solve_counts_is_recorded():
    comparison = Comparison("problem", torch.zeros(1))
    comparison.enter("counted", lambda: Solve(lambda: 7, counts=lambda result: {"steps": result}))
    assert comparison.records["counted"]["steps"] == 7


def test_an_error_that_is_none_of_availability_is_raised():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Comparison("problem", torch.zeros(1)).enter("broken", broken)


def test_a_solve_that_does_not_reach_its_end_is_left_out(solver_error):
    def values(result):
        raise solver_error

    comparison = Comparison("problem", torch.zeros(1))
    comparison.enter("short", lambda: Solve(lambda: 7, values))
    assert comparison.records == {}
    assert comparison.first_call("short").verdict == f"not measured ({solver_error})"


def test_run_enters_measures_and_adds_first_calls():
    times = []
    comparison = Comparison("problem", torch.zeros(1))
    entries = {
        name: lambda name=name: Solve(lambda: times.append(name), evaluations=lambda result: 2) for name in ("a", "b")
    }
    with Progress(disable=True) as progress:
        goals = [Goal("a", "b", 2.0)]
        outcome = comparison.run(
            progress, entries, goals, rounds=4, first_calls=["b"], evaluations=goals, first_call_s=7.0
        )
    assert [m.name for m in outcome.measurements] == [
        "problem: a / b",
        "problem: first call, b, s",
        "problem: a / b, evaluations",
    ]
    assert outcome.measurements[1].high == 7
    assert outcome.records == {"problem": comparison.records}
    assert times.count("a") == times.count("b") == 1 + 4 * 2  # the first call, and each round with its warm-up


def test_solves_in_markdown(compared):
    comparison, _, _ = compared
    lines = solves_as_markdown({"problem": comparison.records, "kept": [1, 2], "counts": {"a": 1}}).splitlines()
    assert lines[2:] == ["| problem | quick | 1000.00 | 7 | 5.0e-01 |", "| problem | slow | 4000.00 |  |  |"]
