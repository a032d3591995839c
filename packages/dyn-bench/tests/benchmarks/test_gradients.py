"""The benchmark of gradients on a small budget; the real one is `nox -s bench -- run gradients`."""

import json
import sys
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks import algorithm_table as algorithm_table_module
from dyn_bench.benchmarks import gradient_memory as gradient_memory_module
from dyn_bench.benchmarks import gradient_times as gradient_times_module
from dyn_bench.benchmarks.algorithm_table import CALM, DISSIPATIVE, algorithm_table
from dyn_bench.benchmarks.equilibrium_setup import EquilibriumSetup
from dyn_bench.benchmarks.gradient_memory import gradient_memory
from dyn_bench.benchmarks.gradient_setup import MemorySetup, SeminormSetup, TableSetup
from dyn_bench.benchmarks.gradient_times import gradient_times
from dyn_bench.benchmarks.gradients import Gradients
from dyn_bench.benchmarks.seminorm import seminorm_evaluations
from dyn_bench.benchmarks.setup import Setup
from dyn_bench.protocols import compilation, solve
from dyn_bench.protocols.solve import dyn_gradient
from dyn_numerics import odeint

PERCEPTRON = Setup(batch=3, end=0.5, tolerance=1e-5, repeats=1)
SEMINORM = SeminormSetup(networks=2)
MEMORY = MemorySetup(elements=1000, steps=(8, 16, 32), budget=4, reversible=("alf",))
TABLE = TableSetup(batch=2, end=1.0, repeats=1)
LAYER = EquilibriumSetup("layer", width=8, batch=4, repeats=1, residual=1e-4)


def run(work, *args):
    with Progress(disable=True) as progress:
        return work(progress, *args)


@pytest.fixture
def asked(monkeypatch):
    """This library, eager, in the place of peers and of compiled gradients; and what was asked of whom."""
    calls = []

    def in_place_of(peer, ours):
        def gradient(*args, **options):
            known = {"field", "x0", "t", "tolerance", "loss"}
            calls.append((peer, {name: option for name, option in options.items() if name not in known}))
            return dyn_gradient(*args, **{name: options[name] for name in (*known, *ours) if name in options})

        return gradient

    own = ("sensitivity", "compiled")
    monkeypatch.setattr(gradient_times_module, "torchdiffeq_gradient", in_place_of("torchdiffeq", ()))
    monkeypatch.setattr(gradient_times_module, "diffrax_gradient", in_place_of("diffrax", ()))
    monkeypatch.setattr(gradient_times_module, "dyn_gradient", in_place_of("dyn", own))
    monkeypatch.setattr(solve, "compile_whole", lambda function, in_python=False: function)
    return calls


def test_times_of_gradients_are_held_against_those_that_are_meant(asked):
    outcome = run(gradient_times, PERCEPTRON)
    prefix = "perceptron gradient: "
    assert {m.name.removeprefix(prefix): m.high for m in outcome.measurements} == {
        "eager autograd / torchdiffeq autograd": 0.8,
        "eager autograd, as precise / torchdiffeq autograd": 0.8,
        "eager adjoint / torchdiffeq adjoint": 0.6,
        "eager adjoint, as precise / torchdiffeq adjoint": 0.6,
        "compiled autograd / torchdiffeq adjoint": 0.2,
        "compiled autograd, as precise / torchdiffeq adjoint": 0.2,
        "compiled adjoint / torchdiffeq adjoint": 0.2,
        "compiled adjoint, as precise / torchdiffeq adjoint": 0.2,
        "compiled autograd / diffrax checkpoint": 1.1,
        "compiled autograd / diffrax adjoint": 1.1,
        "compiled adjoint / diffrax checkpoint": 1.1,
        "compiled adjoint / diffrax adjoint": 1.1,
    }
    assert all(m.value > 0 for m in outcome.measurements)
    assert all(record["largest_error"] < 1e-3 for record in outcome.records["perceptron gradient"].values())
    reference, *others = asked
    assert reference == ("dyn", {})
    records = outcome.records["perceptron gradient"]
    of_peer = records["torchdiffeq autograd"]["largest_error"]
    assert records["eager autograd, as precise"]["largest_error"] <= of_peer
    # In whose place is autograd, which may be too precise for the adjoint: it is tried at the tolerance of all then.
    precise = records["eager adjoint, as precise"]["largest_error"]
    assert precise <= of_peer or precise == records["eager adjoint"]["largest_error"]
    assert others[:8] == [
        ("torchdiffeq", {"adjoint": False}),
        ("torchdiffeq", {}),
        ("diffrax", {}),
        ("diffrax", {"adjoint": "backsolve"}),
        ("dyn", {"sensitivity": "autograd"}),
        ("dyn", {"sensitivity": "adjoint"}),
        ("dyn", {"sensitivity": "autograd", "compiled": True}),
        ("dyn", {"sensitivity": "adjoint", "compiled": True}),
    ]


def test_times_without_peers_keep_every_row(monkeypatch):
    for peer in ("torchdiffeq", "diffrax"):
        monkeypatch.setitem(sys.modules, peer, None)
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    measurements = run(gradient_times, PERCEPTRON).measurements
    assert len(measurements) == 12
    assert {m.value for m in measurements} == {None}


def test_a_seminorm_needs_fewer_evaluations():
    outcome = run(seminorm_evaluations, SEMINORM)
    (ratio,) = outcome.measurements
    records = outcome.records["seminorm"]
    without, full = (records[name]["evaluations"] for name in ("without the parameters", "with them"))
    assert ratio.value == without / full
    assert 0 < ratio.value < 1
    assert all(0 < record["largest_error"] < 0.1 for record in records.values())


def test_bytes_of_solves_of_known_memory(monkeypatch):
    asked = []

    def by_autograd(f, x0, t_span, *, sensitivity="autograd", **options):
        asked.append(sensitivity)
        return odeint(f, x0, t_span, **options)

    outcome = run(gradient_memory, MEMORY)
    bytes_a_step, linear, checkpoint, adjoint, *reversible = outcome.measurements
    assert bytes_a_step.value < 1.2
    assert linear.value == pytest.approx(1, abs=0.01)
    assert 0.5 < checkpoint.value < 1.5
    assert adjoint.value == 0
    assert [m.name for m in reversible] == [
        "reversible, alf: bytes a step",
        "reversible, ReversibleRungeKutta(rk4): bytes a step",
    ]
    assert all(0 <= m.value <= 16 for m in reversible)
    records = outcome.records["gradient_memory"]
    grown = records["autograd"]["32 steps"] - records["autograd"]["16 steps"]
    assert grown == pytest.approx(16 * 4 * 8000, rel=0.01)  # the stages, which the sine keeps
    # Every figure misses where all of it is done by autograd.
    monkeypatch.setattr(gradient_memory_module, "odeint", by_autograd)
    _, _, *others = run(gradient_memory, MEMORY).measurements
    assert not any(m.passed for m in others)
    assert {repr(sensitivity) for sensitivity in asked} == {
        "'autograd'",
        "RecursiveCheckpoint(4)",
        "'adjoint'",
        "'reversible'",
    }


def test_every_algorithm_is_in_the_table():
    outcome = run(algorithm_table, TABLE)
    names = set(algorithm_table_module.ALGORITHMS) - {"reversible"}
    for problem in (CALM, DISSIPATIVE):
        table = outcome.records[problem]
        assert set(table) == names | {f"{name}, with ReversibleRungeKutta" for name in ("autograd", "reversible")}
        for row in table.values():
            assert row["failure"] is None
            assert 0 < row["error"] < 1e-3
            assert row["kept_bytes"] < row["peak_bytes"]
    *errors, undone = outcome.measurements
    assert [m.name for m in errors] == [f"{CALM}: error of {name} / tolerance" for name in outcome.records[CALM]][:-2]
    assert all(m.passed for m in errors)
    assert undone.value == pytest.approx(1, abs=1e-6)


def test_what_fails_in_the_table_says_so(monkeypatch):
    monkeypatch.setitem(algorithm_table_module.ALGORITHMS, "adjoint", algorithm_table_module.ALGORITHMS["reversible"])
    outcome = run(algorithm_table, TABLE)
    assert "no exact inverse step" in outcome.records[CALM]["adjoint"]["failure"]
    (missing,) = (m for m in outcome.measurements if m.value is None)
    assert missing.name == f"{CALM}: error of adjoint / tolerance"
    json.dumps(outcome.records, allow_nan=False)


def test_all_of_it(asked):
    layer = EquilibriumSetup("layer", batch=3, width=8, repeats=1)
    small = Gradients(PERCEPTRON, replace(SEMINORM, networks=1), MEMORY, replace(TABLE, end=0.1), layer)
    outcome = run(small.run)
    (figure,) = outcome.pictures.values()
    assert isinstance(figure, Figure)
    assert set(outcome.records) == {
        "perceptron gradient",
        "seminorm",
        "gradient_memory",
        CALM,
        DISSIPATIVE,
        "layer, training step",
    }
    assert len(outcome.measurements) == 12 + 1 + 6 + (len(outcome.records[CALM]) - 1) + 1
