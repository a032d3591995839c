"""Training steps of an equilibrium layer on a small budget."""

import sys

import pytest
from rich.progress import Progress

from dyn_bench.benchmarks import equilibrium_gradients as module
from dyn_bench.benchmarks.equilibrium_gradients import equilibrium_gradients
from dyn_bench.benchmarks.equilibrium_setup import EquilibriumSetup
from dyn_bench.protocols.root_solve import dyn_fixed_point_gradient

SMALL = EquilibriumSetup("layer", width=8, batch=20, repeats=1, residual=1e-4)


def run():
    with Progress(disable=True) as progress:
        return equilibrium_gradients(progress, SMALL)


def test_steps_have_equal_errors(monkeypatch):
    """This library in the place of torchdeq."""
    asked = []

    def peer(h, z0, *, max_iter, solver, **options):
        asked.append((solver, max_iter))
        return dyn_fixed_point_gradient(h, z0, solver="anderson", **options)

    monkeypatch.setattr(module, "torchdeq_gradient", peer)
    outcome = run()
    assert set(asked) == {("anderson", 50), ("fixed_point_iter", 50)}
    (measurement,) = outcome.measurements
    assert measurement.name == "layer, training step: anderson / torchdeq anderson"
    assert measurement.high == 0.8
    assert measurement.value > 0
    records = outcome.records["layer, training step"]
    assert set(records) == {
        "torchdeq anderson",
        "torchdeq fixed_point_iter",
        "anderson",
        "anderson, bicgstab",
        "fixed_point",
    }
    for record in records.values():
        assert 1e-5 < record["largest_error"] <= 1e-3


def test_without_torchdeq(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdeq", None)
    outcome = run()
    (measurement,) = outcome.measurements
    assert measurement.value is None
    assert "torchdeq is not installed" in measurement.reason
    assert "anderson" in outcome.records["layer, training step"]


def test_beside_an_installed_torchdeq():
    pytest.importorskip("torchdeq")
    assert run().measurements[0].value > 0
