"""Solves of one problem side by side: their times, and what they got for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rich.progress import Progress
from torch import Tensor

from dyn_bench.experiment import Measurement, Outcome, track
from dyn_bench.protocols.solve import Solve
from dyn_bench.protocols.timing import measure, one_thread
from dyn_bench.protocols.unavailable import UnavailableError
from dyn_numerics import SolverError

__all__ = ["Comparison", "Goal", "solves_as_markdown"]


@dataclass(frozen=True)
class Goal:
    """Which share of one solve's time, or evaluations, another is to need at most."""

    solve: str
    against: str
    share: float


class Comparison:
    """Solves of the same problem. One that is not available is left out, and so is known to be.

    Args:
        problem: Name of the problem.
        reference: The right values.

    Attributes:
        records: What is known of each solve, ready for JSON: seconds of its first call and, once they were measured, the
            median and the fastest of its times, its evaluations, its largest error, absolute, and what else it counts.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.comparison import Comparison, Goal
        >>> from dyn_bench.protocols.solve import Solve
        >>> x = torch.rand(1000)
        >>> comparison = Comparison("sum of a thousand", x.double().sum())
        >>> comparison.enter("torch", lambda: Solve(run=x.sum, values=lambda total: total))
        >>> comparison.enter("Python", lambda: Solve(run=lambda: sum(x.tolist()), values=torch.tensor))
        >>> (measurement,) = comparison.measure([Goal("torch", "Python", share=0.5)], range(5))
        >>> measurement.name, measurement.expected
        ('sum of a thousand: torch / Python', '≤ 0.5')
    """

    def __init__(self, problem: str, reference: Tensor) -> None:
        self.problem = problem
        self.records: dict[str, dict[str, Any]] = {}
        self._reference = reference.double()
        self._solves: dict[str, Solve] = {}
        self._missing: dict[str, str] = {}

    def run(
        self,
        progress: Progress,
        entries: Mapping[str, Callable[[], Solve]],
        goals: Sequence[Goal],
        rounds: int,
        first_calls: Sequence[str] = (),
        evaluations: Sequence[Goal] = (),
        first_call_s: float = 30.0,
    ) -> Outcome:
        """Enters solves, measures them in turn, and shows how far it is.

        Args:
            progress: Where to show it.
            entries: What prepares each solve, by its name.
            goals: Which pairs are compared.
            rounds: How often each is timed.
            first_calls: The solves whose first call is held against its goal too.
            evaluations: Which pairs are compared by their evaluations.
            first_call_s: How many seconds such a call is to take at most.

        Returns:
            The ratios of times, then the seconds of first calls, then the ratios of evaluations; and the records.
        """
        for name, prepare in track(progress, entries.items(), len(entries), f"{self.problem}, first calls"):
            self.enter(name, prepare)
        measurements = self.measure(goals, track(progress, range(rounds), rounds, self.problem))
        measurements += [self.first_call(name, first_call_s) for name in first_calls]
        measurements += [self.evaluations(goal) for goal in evaluations]
        return Outcome(measurements, {}, {self.problem: self.records})

    def enter(self, name: str, prepare: Callable[[], Solve]) -> None:
        """Prepares a solve and solves for the first time, which is when it is compiled if it is to be.

        One that is not available, or does not reach its end, is left out and known to be.
        """
        try:
            solve = prepare()
            with one_thread():
                start = perf_counter()
                result = solve.run()
                seconds = perf_counter() - start
            record = {
                "first_call_s": seconds,
                "evaluations": solve.evaluations and solve.evaluations(result),
                "largest_error": solve.values and self._largest_error(solve.values(result)),
                **(solve.counts(result) if solve.counts else {}),
            }
        except (UnavailableError, SolverError) as error:
            self._missing[name] = str(error)
            return
        self._solves[name], self.records[name] = solve, record

    def measure(self, goals: Sequence[Goal], rounds: Iterable[object]) -> list[Measurement]:
        """Times all solves in turn, and holds them against the goals.

        Args:
            goals: Which pairs are compared.
            rounds: One element for every round.
        """
        timings = measure({name: solve.run for name, solve in self._solves.items()}, rounds)
        for name, record in self.records.items():
            record["median_s"] = timings.median(name)
            record["fastest_s"] = min(timings.seconds[name])  # far below the median, others were at work too
        return [self._ratio(goal, "", timings.ratio) for goal in goals]

    def evaluations(self, goal: Goal) -> Measurement:
        """The evaluations of a solve over those of another."""

        def ratio(solve: str, against: str) -> float:
            calls, others = (self.records[name]["evaluations"] for name in (solve, against))
            return float(calls / others)

        return self._ratio(goal, ", evaluations", ratio)

    def first_call(self, name: str, high: float = 30.0) -> Measurement:
        """The seconds of a solve's first call, compilation included, and how many they are to be at most."""
        title, reason = f"{self.problem}: first call, {name}, s", self._missing.get(name)
        seconds = self.records[name]["first_call_s"] if reason is None else None
        return Measurement(title, seconds, high=high, reason=reason)

    def _ratio(self, goal: Goal, of: str, ratio: Callable[[str, str], float]) -> Measurement:
        """What a ratio is for a goal, unless one of its solves is missing."""
        title = f"{self.problem}: {goal.solve} / {goal.against}{of}"
        reason = next((self._missing[name] for name in (goal.solve, goal.against) if name in self._missing), None)
        value = ratio(goal.solve, goal.against) if reason is None else None
        return Measurement(title, value, high=goal.share, reason=reason)

    def _largest_error(self, values: Tensor) -> float:
        return (values.detach().double() - self._reference).abs().max().item()


def solves_as_markdown(records: Mapping[str, Any]) -> str:
    """Lays out what is known of the solves of several comparisons: their times beside what they got for them.

    Args:
        records: The `records` of comparisons by the names of their problems; whatever else is there is passed over.
    """
    lines = ["| problem | solve | time, ms | evaluations | largest error |", "|---|---|---|---|---|"]
    for problem, solves in records.items():
        if not isinstance(solves, Mapping):
            continue
        for name, solve in solves.items():
            if isinstance(solve, Mapping) and "median_s" in solve:
                calls, error = solve["evaluations"], solve["largest_error"]
                known = ("" if calls is None else str(calls), "" if error is None else f"{error:.1e}")
                lines.append(f"| {problem} | {name} | {1e3 * solve['median_s']:.2f} | {' | '.join(known)} |")
    return "\n".join(lines)
