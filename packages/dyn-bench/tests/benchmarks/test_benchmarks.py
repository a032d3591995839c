"""The benchmarks on a small budget, end to end; the real ones are `nox -s bench -- run overhead compiled`."""

import sys
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks import agreement as agreement_module
from dyn_bench.benchmarks import lotka_volterra_times, perceptron_times, van_der_pol_times
from dyn_bench.benchmarks.agreement import agreement
from dyn_bench.benchmarks.compiled import Compiled
from dyn_bench.benchmarks.overhead import Overhead
from dyn_bench.benchmarks.setup import Setup
from dyn_bench.benchmarks.step_cost import ideal_traffic
from dyn_bench.protocols import compilation, solve
from dyn_bench.protocols.solve import dyn_gradient, dyn_solve
from dyn_numerics.loop import is_supported

SMALL = Setup(batch=3, end=0.5, tolerance=1e-5, repeats=2)
PEERS = ("torchdiffeq", "torchode", "diffrax")


def run(work, *args):
    with Progress(disable=True) as progress:
        return work(progress, *args)


@pytest.fixture
def no_peers(monkeypatch):
    for peer in PEERS:
        monkeypatch.setitem(sys.modules, peer, None)


@pytest.fixture
def this_for_every_peer(monkeypatch):
    """Solves by this library, eager, in the place of the peers and of compiled solves."""

    def diffrax(components, x0, t, **options):
        return dyn_solve(components.__self__, x0, t, **options)

    monkeypatch.setattr(van_der_pol_times, "diffrax_solve", diffrax)
    monkeypatch.setattr(van_der_pol_times, "torchdiffeq_solve", dyn_solve)
    monkeypatch.setattr(van_der_pol_times, "torchode_solve", partial(dyn_solve, stepping="per_sample"))
    monkeypatch.setattr(lotka_volterra_times, "torchdiffeq_solve", dyn_solve)
    monkeypatch.setattr(perceptron_times, "torchdiffeq_gradient", dyn_gradient)
    monkeypatch.setattr(solve, "compile_whole", lambda function, in_python=False: function)


def small(benchmark, **options):
    return benchmark(van_der_pol=SMALL, outputs=5, lotka_volterra=SMALL, perceptron=SMALL, **options)


def check_picture(outcome):
    (figure,) = outcome.pictures.values()
    assert isinstance(figure, Figure)
    assert all(axes.has_data() for axes in figure.axes)


def test_overhead_without_peers_keeps_every_row(no_peers, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    outcome = run(small(Overhead, elements=100, steps=40).run)
    found = {m.name: m for m in outcome.measurements}
    missing = {name for name, m in found.items() if m.value is None}
    assert len(found) == 24
    assert missing == {name for name in found if "compiled" in name or any(peer in name for peer in PEERS)}
    assert found["Van der Pol, 5 outputs: eager joint / torchdiffeq"].verdict == (
        "not measured (torchdiffeq is not installed: pip install 'dyn-bench[peers]')"
    )
    assert "cannot compile" in found["perceptron gradient: compiled adjoint / torchdiffeq"].reason
    # What is counted is exact at any budget.
    assert found["dopri5 step: operations that compute"].passed
    assert found["dopri5 step: host reads"].value == 1
    assert 1 <= found["1e+02 floats: bytes moved / ideal"].value < 2.5
    assert found["40 steps: peak of tensors / of 10 steps"].value == 1
    assert found["Van der Pol, μ = 25: calls of the field / of the slowest alone"].value == 1
    assert len(outcome.records["slowest_sample"]["steps_alone"]) == 3
    assert outcome.records["Van der Pol, 5 outputs"]["eager joint"]["largest_error"] < 1e-3
    check_picture(outcome)


def test_overhead_with_peers_measures_every_row(this_for_every_peer):
    outcome = run(small(Overhead, elements=100, steps=40).run)
    assert [m.name for m in outcome.measurements if m.value is None] == []
    ratios = [m.value for m in outcome.measurements if " / " in m.name and "perceptron" not in m.name]
    assert all(0.01 < ratio < 100 for ratio in ratios)
    for name, solves in outcome.records.items():
        if "outputs" in name or name == "Lotka-Volterra":
            assert all(record["largest_error"] < 1e-3 for record in solves.values())
            assert all(record["evaluations"] >= 8 for record in solves.values())
    gradients = outcome.records["perceptron gradient"]
    assert set(gradients) == {"torchdiffeq", "compiled autograd", "compiled adjoint"}
    assert all(record["largest_error"] < 1e-3 for record in gradients.values())
    check_picture(outcome)


def test_compiled_without_anything_keeps_every_row(no_peers, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    outcome = run(small(Compiled).run)
    assert len(outcome.measurements) == 6 + 2 + 6 + 1 + 2 + 2 + 2
    assert {m.value for m in outcome.measurements} == {None}
    check_picture(outcome)


def test_compiled_times_first_calls(this_for_every_peer, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)  # for `agreement`, which has a test of its own
    outcome = run(small(Compiled).run)
    first = [m for m in outcome.measurements if "first call" in m.name]
    assert [m.name for m in first] == [
        "Van der Pol, 5 outputs: first call, compiled joint, s",
        "Van der Pol, 5 outputs: first call, compiled per sample, s",
        "perceptron gradient: first call, compiled autograd, s",
        "perceptron gradient: first call, compiled adjoint, s",
    ]
    assert all(m.value > 0 for m in first)
    assert all(m.high == 30 for m in first)


@pytest.fixture
def asked(this_for_every_peer, monkeypatch):
    """What each benchmark asks of this library and of diffrax, in order."""
    calls = []

    def spy(module, name, known):
        original = getattr(module, name)

        def spied(*args, **options):
            calls.append((name, *[options.get(option, default) for option, default in known.items()]))
            return original(*args, **options)

        monkeypatch.setattr(module, name, spied)

    of_solves = {"stepping": "joint", "compiled": False}
    for module in (van_der_pol_times, lotka_volterra_times):
        spy(module, "dyn_solve", of_solves)
    spy(van_der_pol_times, "diffrax_solve", of_solves)
    spy(perceptron_times, "dyn_gradient", {"sensitivity": "autograd", "compiled": False})
    return calls


def test_every_entry_is_solved_as_it_is_called(asked):
    run(partial(van_der_pol_times.van_der_pol_times, outputs=5, share=0.1, eager=True), SMALL)
    assert asked == [
        ("dyn_solve", "joint", False),  # the reference
        ("diffrax_solve", "joint", False),
        ("diffrax_solve", "per_sample", False),
        ("dyn_solve", "joint", True),
        ("dyn_solve", "per_sample", True),
        ("dyn_solve", "joint", False),
        ("dyn_solve", "per_sample", False),
    ]
    asked.clear()
    run(lotka_volterra_times.lotka_volterra_times, SMALL)
    assert asked == [("dyn_solve", "joint", False), ("dyn_solve", "joint", True)]
    asked.clear()
    run(perceptron_times.perceptron_gradient_times, SMALL)
    ways = [call[1:] for call in asked if call[2]]
    assert ways == [("autograd", True), ("adjoint", True)]


def test_what_every_figure_is_held_against(this_for_every_peer, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)  # for `agreement`
    found = {m.name: m.expected for m in run(small(Overhead, elements=100, steps=40).run).measurements}
    many, few = "Van der Pol, 5 outputs: ", "Van der Pol, 2 outputs: "
    assert found[f"{many}eager joint / torchdiffeq"] == "≤ 0.4"
    assert found[f"{many}eager per sample / torchode"] == "≤ 0.7"
    for way in ("joint", "per sample"):
        for peer in ("torchdiffeq", "torchode"):
            assert found[f"{many}compiled {way} / {peer}"] == "≤ 0.04"
            assert found[f"{few}compiled {way} / {peer}"] == "≤ 0.02222"
        assert found[f"{many}compiled {way} / diffrax {way}"] == "≤ 1.2"
    assert found["Lotka-Volterra: compiled / torchdiffeq"] == "≤ 0.007692"
    assert found["perceptron forward: eager / its evaluations"] == "≤ 1.3"
    for way in ("autograd", "adjoint"):
        assert found[f"perceptron gradient: compiled {way} / torchdiffeq"] == "≤ 0.25"


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solve")
def test_one_program_for_all_ends_and_the_same_states(monkeypatch):
    traced = partial(torch.compile, fullgraph=True, backend="eager")
    monkeypatch.setattr(agreement_module, "compile_whole", traced)
    difference, compilations = run(agreement, SMALL).measurements
    assert 0 <= difference.value <= 1e-10
    assert compilations.value == 1


def test_the_largest_difference_of_all_ends_is_found(monkeypatch):
    def off(function):
        ends = iter(range(100))
        return lambda *args: function(*args) * (1 + (1e-6 if next(ends) == 3 else 1e-9))

    monkeypatch.setattr(agreement_module, "compile_whole", off)
    difference, _ = run(agreement, SMALL).measurements
    assert difference.value == pytest.approx(1e-6, rel=1e-6)
    assert not difference.passed


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solve")
def test_a_compiled_solve_that_fails_is_no_agreement(monkeypatch):
    def failing(function):
        ends = iter(range(100))
        return lambda *args: function(*args) * (torch.nan if next(ends) == 3 else 1)

    monkeypatch.setattr(agreement_module, "compile_whole", failing)
    difference, _ = run(agreement, SMALL).measurements
    assert difference.value != difference.value
    assert not difference.passed


def test_the_ideal_traffic_of_dopri5():
    # Stages use 1, 2, 3, 4, 5 and 5 slopes, the error 6; all but the second slope of the solution are used.
    assert ideal_traffic() == (20 + 6 * 2) + 6 * 2 + (6 + 1 + 3)
