"""Times of works that take turns, by a clock that the works themselves move."""

import pytest
import torch

from dyn_bench.protocols.timing import Timings, measure, one_thread


class Clock:
    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def work(self, name, durations):
        left = iter(durations)

        def run():
            self.calls.append((name, torch.get_num_threads()))
            self.now += next(left)

        return run


def test_works_take_turns_on_one_thread_and_warm_up_untimed():
    clock = Clock()
    works = {"a": clock.work("a", [100, 1, 100, 2, 100, 4]), "b": clock.work("b", [100, 10, 100, 40, 100, 20])}
    torch.set_num_threads(2)
    try:
        timings = measure(works, range(3), clock=clock)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert timings.seconds == {"a": [1, 2, 4], "b": [10, 40, 20]}
    assert [name for name, _ in clock.calls] == ["a", "a", "b", "b"] * 3
    assert {threads for _, threads in clock.calls} == {1}


def test_the_number_of_warm_up_calls():
    clock = Clock()
    measure({"a": clock.work("a", [1] * 8)}, range(2), warm_up=3, clock=clock)
    assert len(clock.calls) == 8


def test_rounds_may_show_progress():
    shown = []

    def rounds():
        for i in range(3):
            yield i
            shown.append(i)

    clock = Clock()
    measure({"a": clock.work("a", [1] * 6)}, rounds(), clock=clock)
    assert shown == [0, 1, 2]


def test_medians_and_ratios_of_pairs():
    # The machine is ten times slower in the second round: the medians' ratio is 2 / 3, that of every round 1 / 2.
    timings = Timings({"a": [1.0, 20.0, 2.0], "b": [2.0, 40.0, 4.0], "c": [3.0, 3.0, 30.0]})
    assert timings.median("a") == 2.0
    assert timings.ratio("a", "b") == 0.5
    assert timings.ratio("a", "c") == pytest.approx(1 / 3)


def test_threads_come_back_after_an_error():
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), one_thread():
            1 / (torch.get_num_threads() - 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
