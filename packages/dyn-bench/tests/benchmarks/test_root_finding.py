"""Root finding on a small budget, end to end; the real one is `nox -s bench -- run root-finding`."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch.func import jacfwd

from dyn_bench.benchmarks import broyden_memory as broyden_memory_module
from dyn_bench.benchmarks import equilibrium_times as equilibrium_times_module
from dyn_bench.benchmarks import powell_times as powell_times_module
from dyn_bench.benchmarks import standard_starts as standard_starts_module
from dyn_bench.benchmarks.broyden_memory import broyden_memory
from dyn_bench.benchmarks.convergence_orders import convergence_orders
from dyn_bench.benchmarks.equilibrium_setup import ALIKE, MIXED, SLOW, EquilibriumSetup
from dyn_bench.benchmarks.equilibrium_times import equilibrium_times, hard_sample_times
from dyn_bench.benchmarks.powell_times import powell_jacobian, powell_system, powell_times
from dyn_bench.benchmarks.root_finding import RootFinding
from dyn_bench.benchmarks.standard_starts import standard_starts, starts_as_markdown
from dyn_bench.problems.root.cosine_map import FIXED_POINT
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.problems.root.more_garbow_hillstrom import MORE_GARBOW_HILLSTROM
from dyn_bench.protocols import compilation, root_solve
from dyn_bench.protocols.root_solve import dyn_fixed_point, dyn_root
from dyn_bench.protocols.solve import Solve
from dyn_bench.protocols.unavailable import UnavailableError

SMALL = EquilibriumSetup("layer", width=8, batch=20, repeats=1)
POWELL = MORE_GARBOW_HILLSTROM["Powell singular"]


def run(work, *args, **options):
    with Progress(disable=True) as progress:
        return work(progress, *args, **options)


@pytest.fixture
def few_systems(monkeypatch):
    few = {name: MORE_GARBOW_HILLSTROM[name] for name in ("Rosenbrock", "Freudenstein-Roth", "Powell singular")}
    monkeypatch.setattr(standard_starts_module, "MORE_GARBOW_HILLSTROM", few)


@pytest.fixture
def no_peers(monkeypatch):
    for module in ("torchdeq", "torchdeq.solver", "torchdeq.solver.anderson", "scipy", "scipy.optimize"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def this_for_every_peer(monkeypatch):
    """This library, eager, in the place of the peers and of compiled searches; the options that peers were given."""
    asked = []

    def torchdeq(h, z0, *, max_iter, **options):
        asked.append((options["solver"], max_iter))
        return dyn_fixed_point(h, z0, **options)

    def scipy(g, z0, *, tolerance, method="hybr", jac=None):
        asked.append((method, jac))
        return dyn_root(POWELL.function, z0, tolerance=tolerance)

    monkeypatch.setattr(equilibrium_times_module, "torchdeq_fixed_point", torchdeq)
    monkeypatch.setattr(powell_times_module, "scipy_roots", scipy)
    monkeypatch.setattr(root_solve, "compile_whole", lambda function: function)
    return asked


def test_without_peers_every_row_stays(no_peers, few_systems, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    small = RootFinding(
        alike=SMALL,
        slow=replace(SMALL, title="slow layer", hard=1.0),
        mixed=replace(SMALL, title="mixed layer", hard=0.05),
        systems=5,
        repeats=1,
    )
    outcome = run(lambda progress: small.run(progress))
    found = {m.name: m for m in outcome.measurements}
    assert {name for name, m in found.items() if m.value is None} == {
        name for name in found if "torchdeq" in name or "SciPy" in name or "compiled" in name
    }
    for name in ("layer: anderson / torchdeq anderson", "slow layer: broyden / torchdeq broyden, evaluations"):
        assert found[name].verdict == "not measured (torchdeq is not installed: pip install 'dyn-bench[peers]')"
    assert "cannot compile" in found["5 Powell systems: first call, compiled newton, s"].reason
    assert found["3 standard starts: newton, systems not solved"].value == 0
    assert set(outcome.pictures) == {"ratios", "convergence"}
    assert all(isinstance(figure, Figure) for figure in outcome.pictures.values())
    assert set(outcome.records["layer"]) == {"anderson", "broyden"}
    assert set(outcome.records["mixed layer"]) == {"anderson", "anderson, compact", "broyden", "broyden, compact"}


def test_equal_residuals_of_equal_methods_take_equal_evaluations(this_for_every_peer):
    outcome = run(equilibrium_times, replace(SMALL, anderson_iterations=7, broyden_iterations=9))
    assert {(m.name, m.expected) for m in outcome.measurements} == {
        (f"layer: {name} / torchdeq {name}{of}", expected)
        for name in ("anderson", "broyden")
        for of, expected in (("", "≤ 0.8"), (", evaluations", "≤ 1"))
    }
    assert [m.value for m in outcome.measurements if "evaluations" in m.name] == [1, 1]
    assert set(this_for_every_peer) == {("anderson", 7), ("broyden", 9)}
    # The loosest tolerance is meant: the residual is within one step of the grid, and of what the method gains in one.
    assert all(1e-6 < record["largest_error"] <= 1e-5 for record in outcome.records["layer"].values())


def test_a_peer_that_returns_more_than_it_tested_gets_a_looser_tolerance(this_for_every_peer, monkeypatch):
    tolerances = []

    def torchdeq(h, z0, *, tolerance, max_iter, **options):
        tolerances.append(tolerance)
        return dyn_fixed_point(h, z0, tolerance=tolerance / 3, **options)

    monkeypatch.setattr(equilibrium_times_module, "torchdeq_fixed_point", torchdeq)
    outcome = run(equilibrium_times, SMALL)
    assert max(tolerances) > 1e-5
    assert [m.value for m in outcome.measurements if "evaluations" in m.name] == [1, 1]


def test_errors_are_residuals_relative_to_the_map(monkeypatch):
    z = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(
        equilibrium_times_module,
        "torchdeq_fixed_point",
        lambda *args, **options: Solve(lambda: z, lambda z: z, lambda result: 3),
    )
    outcome = run(equilibrium_times, replace(SMALL, seed=5))
    network = EquilibriumNetwork(8, 8, 0.9, seed=5)
    x, gain = network.inputs(20, seed=5)
    mapped = torch.tanh(gain * (z @ network.weight.T) + x @ network.input_weight.T)
    expected = ((mapped - z).norm(dim=1) / mapped.norm(dim=1)).max().item()
    assert outcome.records["layer"]["torchdeq broyden"]["largest_error"] == pytest.approx(expected, rel=1e-6)


def test_hard_samples_are_compared_by_time_with_those_that_leave_the_batch(this_for_every_peer, monkeypatch):
    asked = set()

    def spied(*args, compact=False, **options):
        asked.add((options["solver"], compact))
        return dyn_fixed_point(*args, compact=compact, **options)

    monkeypatch.setattr(equilibrium_times_module, "dyn_fixed_point", spied)
    outcome = run(hard_sample_times, replace(SMALL, hard=0.05))
    assert {(m.name, m.expected) for m in outcome.measurements} == {
        (f"layer: {name}, compact / torchdeq {name}", "≤ 0.5") for name in ("anderson", "broyden")
    }
    assert all(0.01 < m.value < 100 for m in outcome.measurements)
    assert asked == {(name, compact) for name in ("anderson", "broyden") for compact in (False, True)}
    records = outcome.records["layer"]
    assert records["anderson, compact"]["evaluations"] == records["anderson"]["evaluations"]


def test_which_layers_are_mixed():
    assert [setup.is_mixed for setup in (ALIKE, SLOW, MIXED)] == [False, False, True]
    assert {(setup.width, setup.batch, setup.residual) for setup in (ALIKE, SLOW, MIXED)} == {(512, 256, 1e-5)}


def test_the_bytes_that_broyden_s_method_hands_on(no_peers):
    outcome = run(broyden_memory, SMALL)
    for memory, m in zip((4, 16, 64), outcome.measurements, strict=True):
        record = outcome.records["broyden_memory"][f"memory {memory}"]
        # Pairs of vectors, of which one is the last iterate with its residual.
        assert record["bytes"] == record["bound"] == 4 * 20 * 2 * memory * 8
        assert m.value == 1
        assert m.high == 1
        assert record["bytes"] < record["peak_bytes"] < record["bytes"] + 4 * 20 * 8 * 20
    assert set(outcome.records["broyden_memory"]) == {"memory 4", "memory 16", "memory 64"}


def test_the_peak_of_a_peer_stands_beside_them(monkeypatch):
    monkeypatch.setattr(
        broyden_memory_module,
        "torchdeq_fixed_point",
        lambda *args, max_iter, **options: dyn_fixed_point(*args, **options),
    )
    records = run(broyden_memory, replace(SMALL, broyden_iterations=33)).records["broyden_memory"]
    assert records["torchdeq, max_iter 33"]["peak_bytes"] > records["memory 16"]["bytes"]


def test_powell_s_systems_are_held_against_scipy_at_equal_residual(this_for_every_peer):
    outcome = run(powell_times, systems=4, repeats=1)
    assert [(m.name, m.high) for m in outcome.measurements] == [
        ("4 Powell systems: compiled newton / SciPy hybr", 1 / 20),
        ("4 Powell systems: compiled newton / SciPy hybr, Jacobian given", 1 / 20),
        ("4 Powell systems: first call, compiled newton, s", 30),
    ]
    assert this_for_every_peer == [("hybr", None), ("hybr", powell_jacobian)]
    records = outcome.records["4 Powell systems"]
    assert records["newton"]["largest_error"] < 1e-28  # as far as MINPACK goes
    assert 1e-12 < records["SciPy hybr"]["largest_error"] <= 1e-8


def test_powell_s_system_in_numpy_is_that_of_the_collection():
    for z in POWELL.starts(5, scale=3.0, seed=1):
        np.testing.assert_allclose(powell_system(z.numpy()), POWELL.function(z).numpy(), rtol=1e-14)
        np.testing.assert_allclose(powell_jacobian(z.numpy()), jacfwd(POWELL.function)(z).numpy(), rtol=1e-14)


def test_what_is_solved_from_standard_starts(few_systems, no_peers):
    outcome = run(standard_starts)
    unsolved = {m.name.split(": ")[1].removesuffix(", systems not solved"): m for m in outcome.measurements}
    assert unsolved["newton"].value == 0
    assert unsolved["newton"].expected == "any"
    assert (unsolved["newton, armijo"].value, unsolved["newton, armijo"].high) == (1, 0)
    found = outcome.records["standard_starts"]
    assert set(found["Rosenbrock"]) == set(unsolved) >= {"newton", "newton, armijo", "chord", "broyden"}
    rosenbrock = found["Rosenbrock"]["newton"]
    assert (rosenbrock["steps"], rosenbrock["evaluations"], rosenbrock["solved"]) == (2, 5, True)
    assert not found["Freudenstein-Roth"]["newton, armijo"]["solved"]
    assert 1e-12 < found["Powell singular"]["newton"]["error"] < 1e-3  # the root of its residual


def test_scipy_stands_beside_them(few_systems, monkeypatch):
    def scipy(g, z0, *, tolerance, method):
        assert g(np.array([1.0, 1.0, 1.0, 1.0])[: z0.shape[1]]).shape == (z0.shape[1],)
        return replace(dyn_root(lambda z: z - 11.0, z0, tolerance=tolerance), evaluations=lambda result: 5)

    monkeypatch.setattr(standard_starts_module, "scipy_roots", scipy)
    found = run(standard_starts).records["standard_starts"]
    assert found["Rosenbrock"]["SciPy hybr"] == {"solved": False, "trapped": False, "error": 5.0} | {
        "steps": None,
        "evaluations": 5,
    }


def test_starts_in_markdown():
    ending = {"solved": False, "trapped": False, "error": 1.0, "steps": 3, "evaluations": 7}
    row = {
        "newton": ending | {"solved": True},
        "chord": ending,
        "broyden": ending | {"trapped": True},
        "SciPy lm": ending | {"solved": True, "steps": None},
    }
    assert starts_as_markdown({"circle": row}).splitlines() == [
        "| system | newton | chord | broyden | SciPy lm |",
        "|---|---|---|---|---|",
        "| circle | 3, 7 | – | minimum | 7 |",
    ]


def test_orders_of_convergence():
    outcome = run(convergence_orders)
    newton, broyden, picard = outcome.measurements
    assert newton.value == pytest.approx(2, abs=0.05)
    assert broyden.value == pytest.approx((1 + 5**0.5) / 2, abs=0.05)
    assert picard.value == pytest.approx(1, abs=1e-3)
    assert all(m.passed for m in outcome.measurements)
    errors = outcome.records["convergence"]
    assert all(found[-1] >= 1e-13 for found in errors.values())
    iterates = np.array([0.0, 1.0, np.cos(1.0), np.cos(np.cos(1.0))])
    np.testing.assert_allclose(errors["fixed_point"][:4], abs(iterates - FIXED_POINT) / (1 + FIXED_POINT))
    (axes,) = outcome.pictures["convergence"].axes
    assert [line.get_label() for line in axes.lines] == list(errors)


def test_a_compiled_search_is_asked_for(monkeypatch):
    compiled = []

    def refuse(*args, **options):
        raise UnavailableError("no peer")

    monkeypatch.setattr(root_solve, "compile_whole", lambda function: compiled.append(function) or function)
    monkeypatch.setattr(powell_times_module, "scipy_roots", refuse)
    run(powell_times, systems=2, repeats=1)
    assert len(compiled) == 1
