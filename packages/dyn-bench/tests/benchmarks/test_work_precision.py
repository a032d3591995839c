"""Work and precision on a small budget, end to end."""

import sys
from functools import partial

import pytest
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks import work_precision
from dyn_bench.benchmarks.work_precision import WorkPrecision
from dyn_bench.problems.lotka_volterra import LOTKA_VOLTERRA_TO_10
from dyn_bench.protocols.solve import dyn_solve

SMALL = WorkPrecision(loosest=-4, tightest=-6, per_decade=1, fixed_steps=(200, 400))


def run(monkeypatch):
    monkeypatch.setattr(work_precision, "PROBLEMS", (LOTKA_VOLTERRA_TO_10,))
    with Progress(disable=True) as progress:
        return SMALL.run(progress)


def test_tolerances_are_evenly_spaced_decimals():
    assert SMALL.tolerances == [1e-4, 1e-5, 1e-6]
    assert WorkPrecision(loosest=-4, tightest=-5, per_decade=4).tolerances == [1e-4, 5.62e-5, 3.16e-5, 1.78e-5, 1e-5]
    assert WorkPrecision().tolerances[::4] == [1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10]


def test_without_peers_the_comparisons_are_missing(monkeypatch):
    for peer in ("torchdiffeq", "scipy", "scipy.integrate"):
        monkeypatch.setitem(sys.modules, peer, None)
    outcome = run(monkeypatch)
    errors, ratios = outcome.measurements[:5], outcome.measurements[5:]
    assert [m.name for m in errors] == [
        f"Lotka-Volterra: {name}, error / tolerance" for name in ("bosh3", "dopri5", "tsit5", "vern7", "dopri8")
    ]
    assert all(0.5 < m.value < m.high == 50 for m in errors)
    assert len(ratios) == 4
    assert {m.verdict for m in ratios} == {
        f"not measured ({peer} is not installed: pip install 'dyn-bench[peers]')" for peer in ("torchdiffeq", "scipy")
    }
    left, right = outcome.pictures["curves"].axes
    assert [line.get_label() for line in left.lines] == ["rk4", "bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
    assert [line.get_label() for line in right.lines] == ["dopri5", "tsit5", "vern7", "dopri8"]


def test_with_peers_each_is_held_against_its_own(monkeypatch):
    """This library in their place: the same method is as good as itself, and one of order 3 costs more."""
    solvers = {"torchdiffeq dopri5": "dopri5", "SciPy RK45": "dopri5", "SciPy DOP853": "dopri8"}
    peers = {name: partial(dyn_solve, solver=solver) for name, solver in solvers.items()}
    monkeypatch.setattr(work_precision, "PEERS", peers)
    monkeypatch.setitem(work_precision.COMPARED, "bosh3", "SciPy RK45")
    outcome = run(monkeypatch)
    ratios = {m.name.split(": ")[1]: m.value for m in outcome.measurements[5:]}
    assert ratios["dopri5, evaluations / torchdiffeq dopri5's at equal error"] == pytest.approx(1)
    assert ratios["dopri8, evaluations / SciPy DOP853's at equal error"] == pytest.approx(1)
    assert ratios["tsit5, evaluations / torchdiffeq dopri5's at equal error"] < 1
    assert 1.5 < ratios["bosh3, evaluations / SciPy RK45's at equal error"] < 10
    assert {m.high for m in outcome.measurements[5:]} == {1.1}
    found = outcome.records["Lotka-Volterra"]
    assert found["dopri5"] == found["SciPy RK45"]
    assert [point["tolerance"] for point in found["dopri5"]] == [1e-4, 1e-5, 1e-6]
    assert [(point["tolerance"], point["evaluations"]) for point in found["rk4"]] == [(None, 800), (None, 1600)]
    assert found["rk4"][0]["error"] / found["rk4"][1]["error"] == pytest.approx(16, rel=0.2)
    assert isinstance(outcome.pictures["curves"], Figure)
