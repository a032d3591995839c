"""Stiff problems on a small budget, end to end; the real ones are `nox -s bench -- run stiff`."""

import sys
from dataclasses import replace
from functools import partial
from math import cos, sin

import pytest
import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks import ensemble_times as ensemble_times_module
from dyn_bench.benchmarks import stiff_work_precision as stiff_work_precision_module
from dyn_bench.benchmarks.automatic_choice import automatic_choice
from dyn_bench.benchmarks.ensemble_times import ensemble_times
from dyn_bench.benchmarks.newton_krylov import newton_krylov
from dyn_bench.benchmarks.stiff import Stiff
from dyn_bench.benchmarks.stiff_chart import draw_stiff
from dyn_bench.benchmarks.stiff_setup import CurveSetup, EnsembleSetup, GridSetup, OscillatorSetup
from dyn_bench.benchmarks.stiff_work_precision import stiff_work_precision
from dyn_bench.problems.reference_problem import ReferenceProblem
from dyn_bench.problems.rober import ROBER, ROBER_TO_1E11
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_bench.protocols import compilation
from dyn_bench.protocols import solve as solve_module
from dyn_bench.protocols.solve import dyn_solve
from dyn_bench.protocols.work_precision import Curve, Point
from dyn_numerics import PerSample, odeint

# Explicit methods, and so short a time that they are no worse: what is measured is how it is measured.
ENSEMBLE = EnsembleSetup(
    "3 ROBER", 3, end=0.02, error=1e-7, solver="dopri5", of_scipy=0.5, of_diffrax=0.25, first_call_s=50.0, repeats=1
)
OSCILLATORS = OscillatorSetup(
    batch=3, mildest=0.0, stiffest=1.0, end=4.0, tolerance=1e-5, explicit="bosh3", implicit="tsit5", automatic="dopri5"
)
CURVES = CurveSetup(
    methods=("tsit5", "dopri5"), counted="dopri5", counted_error=1e-6, loosest=-4, tightest=-6, per_decade=2
)
GRID = GridSetup(points=8, end=0.2, tolerance=1e-4, weighed=(16, 64), weighed_end=0.05, compiles=False, repeats=1)
OSCILLATOR = ReferenceProblem(
    "oscillator", VanDerPol(mu=0.0), (2.0, 0.0), 3.0, (2 * cos(3), -2 * sin(3)), "closed form"
)


def run(work, *args):
    with Progress(disable=True) as progress:
        return work(progress, *args)


@pytest.fixture
def no_peers(monkeypatch):
    for module in ("diffrax", "scipy", "scipy.integrate"):
        monkeypatch.setitem(sys.modules, module, None)


def replacement(components, x0, t, *, args, tolerance, asked, **options):
    """A solve by this library for a peer's, ten times as careful."""
    asked.append({key: value for key, value in options.items() if key not in ("floor", "partials")})
    known = {"solver": "dopri5", "stepping": "per_sample", "floor": options["floor"], "args": (PerSample(args),)}
    return dyn_solve(components.__self__, x0, t, tolerance=tolerance / 10, **known)


@pytest.fixture
def asked(monkeypatch):
    """This library in the place of peers and of compiled solves; how often these were asked for, and with what."""
    asked = {"scipy": [], "diffrax": [], "compiled": []}
    for peer, name in (("scipy", "scipy_stiff_solve"), ("diffrax", "diffrax_solve")):
        monkeypatch.setattr(ensemble_times_module, name, partial(replacement, asked=asked[peer]))
    monkeypatch.setattr(
        solve_module, "compile_whole", lambda solve, in_python: asked["compiled"].append(solve) or solve
    )
    return asked


def test_an_ensemble_is_solved_at_equal_error_and_timed_compiled(asked):
    outcome = run(ensemble_times, ROBER_TO_1E11, ROBER, ENSEMBLE)
    assert [(m.name, m.high) for m in outcome.measurements] == [
        ("3 ROBER: compiled dopri5 / SciPy Radau", 0.5),
        ("3 ROBER: compiled dopri5 / diffrax Kvaerno5", 0.25),
        ("3 ROBER: first call, compiled dopri5, s", 50),
    ]
    assert all(m.value > 0 for m in outcome.measurements)
    assert {frozenset(options.items()) for options in asked["diffrax"]} == {
        frozenset({"method": "Kvaerno5", "stepping": "per_sample"}.items())
    }
    assert len(asked["compiled"]) == 1  # what is looked for is looked for with eager solves
    records = outcome.records["3 ROBER"]
    for record in records.values():
        assert 1e-8 < record["largest_error"] <= 1e-7
    assert records["SciPy Radau"]["tolerance"] > 5 * records["compiled dopri5"]["tolerance"]  # ten times as careful


def test_errors_of_an_ensemble_are_those_of_its_worst_sample(asked):
    (record,) = (
        run(ensemble_times, ROBER_TO_1E11, ROBER, ENSEMBLE).records["3 ROBER"][name] for name in ["compiled dopri5"]
    )
    t, rates = torch.tensor([0.0, 0.02]).double(), ROBER.perturbed_rates(3, 0.2, seed=0)
    x0 = ROBER_TO_1E11.x0.repeat(3, 1)

    def last(tolerance):
        options = {"rtol": tolerance, "atol": 1e-6 * tolerance, "solver": "dopri5", "stepping": "per_sample"}
        return odeint(ROBER, x0, t, args=(rates,), **options).x[-1]

    exact = last(1e-12)
    error = (last(record["tolerance"]) - exact).abs() / (1e-6 + exact)
    assert record["largest_error"] == pytest.approx(error.max().item(), rel=1e-3)


def test_an_ensemble_without_peers_keeps_every_row(no_peers, monkeypatch):
    monkeypatch.setattr(solve_module, "compile_whole", lambda solve, in_python: solve)
    of_scipy, of_diffrax, first = run(ensemble_times, ROBER_TO_1E11, ROBER, ENSEMBLE).measurements
    assert of_scipy.verdict == "not measured (scipy is not installed: pip install 'dyn-bench[peers]')"
    assert "not measured (diffrax is not installed" in of_diffrax.verdict
    assert first.passed


def steps(mu, solver):
    x0, t = torch.tensor([2.0, 0.0]).double(), [0.0, OSCILLATORS.end]
    return int(odeint(VanDerPol(mu), x0, t, solver=solver, rtol=1e-5, atol=1e-5).stats.n_steps)


def test_steps_of_the_automatic_choice_over_the_better_of_two():
    outcome = run(automatic_choice, OSCILLATORS)
    mean, worst = outcome.measurements
    assert [m.name for m in (mean, worst)] == [
        f"3 Van der Pol: steps of dopri5 / of the better of bosh3 and tsit5, {kind}" for kind in ("mean", "worst")
    ]
    ratios = [steps(mu, "dopri5") / min(steps(mu, "bosh3"), steps(mu, "tsit5")) for mu in (1, 10**0.5, 10)]
    assert mean.value == pytest.approx(sum(ratios) / 3)
    assert worst.value == pytest.approx(max(ratios))
    assert mean.high == worst.high == 1.3
    records = outcome.records["automatic_choice"]
    assert records["mu"] == pytest.approx([1, 10**0.5, 10])
    assert records["dopri5"] == [steps(mu, "dopri5") for mu in records["mu"]]


def test_an_explicit_method_that_takes_more_than_all_is_given_up():
    records = run(automatic_choice, replace(OSCILLATORS, stiffest=2.0)).records["automatic_choice"]
    swapped = run(automatic_choice, replace(OSCILLATORS, stiffest=2.0, explicit="tsit5", implicit="bosh3"))
    fewest = [min(n for n in (a, b) if n) for a, b in zip(records["bosh3"], records["tsit5"], strict=True)]
    found = swapped.records["automatic_choice"]
    assert fewest == [min(n for n in (a, b) if n) for a, b in zip(found["bosh3"], found["tsit5"], strict=True)]
    assert None in records["bosh3"]


@pytest.fixture
def one_problem(monkeypatch):
    monkeypatch.setattr(stiff_work_precision_module, "PROBLEMS", (OSCILLATOR,))
    monkeypatch.setattr(stiff_work_precision_module, "COUNTED", OSCILLATOR)


def test_curves_of_stiff_problems_without_peers(one_problem, no_peers):
    outcome = run(stiff_work_precision, CURVES)
    assert [m.name for m in outcome.measurements[:2]] == [
        "oscillator: tsit5, error / tolerance",
        "oscillator: dopri5, error / tolerance",
    ]
    assert all(0.01 < m.value < m.high == 100 for m in outcome.measurements[:2])
    assert [m.name for m in outcome.measurements[2:]] == [
        "oscillator: dopri5, evaluations / those of SciPy Radau at an error of 1e-06",
        "oscillator: dopri5, evaluations / those of SciPy Radau, differences at an error of 1e-06",
        "oscillator: dopri5, factorisations / those of SciPy Radau at an error of 1e-06",
    ]
    assert {m.verdict for m in outcome.measurements[2:]} == {
        "not measured (scipy is not installed: pip install 'dyn-bench[peers]')"
    }
    points = outcome.records["oscillator"]["dopri5"]
    assert [point["tolerance"] for point in points] == [1e-4, 3.16e-5, 1e-5, 3.16e-6, 1e-6]
    for point in points:
        solution = odeint(
            OSCILLATOR.field,
            OSCILLATOR.x0,
            [0.0, 3.0],
            solver="dopri5",
            rtol=point["tolerance"],
            atol=point["tolerance"],
        )
        assert (point["evaluations"], point["steps"]) == (int(solution.stats.n_evals), int(solution.stats.n_steps))
        assert point["error"] == pytest.approx(OSCILLATOR.error(solution.x[-1]))
        assert point["seconds"] > 0
    assert isinstance(outcome.pictures["curves"], Figure)


def test_evaluations_and_factorisations_over_a_peer_s(one_problem, monkeypatch):
    def scipy(components, x0, t, *, partials, method, **options):
        calls, factorisations = (30, 4) if partials is not None else (60, 4)
        solve = dyn_solve(components.__self__, x0, t, solver="dopri5", **options)
        return replace(
            solve,
            evaluations=lambda result: calls * int(result.stats.n_evals),
            counts=lambda result: {"steps": 3, "factorisations": factorisations * int(result.stats.n_evals)},
        )

    def counted(*args, **options):
        solve = dyn_solve(*args, **options)
        return replace(solve, counts=lambda result: {"factorisations": int(result.stats.n_evals)})

    monkeypatch.setattr(stiff_work_precision_module, "scipy_stiff_solve", scipy)
    monkeypatch.setattr(stiff_work_precision_module, "dyn_solve", counted)
    given, differences, factorisations = run(stiff_work_precision, CURVES).measurements[2:]
    assert [m.value for m in (given, differences, factorisations)] == pytest.approx([1 / 30, 1 / 60, 1 / 4])
    assert [m.expected for m in (given, differences, factorisations)] == ["≤ 1.3", "any", "≤ 1.3"]


def test_solves_of_too_many_steps_end_a_curve(one_problem, no_peers):
    steps = [point["steps"] for point in run(stiff_work_precision, CURVES).records["oscillator"]["dopri5"]]
    few = run(stiff_work_precision, replace(CURVES, max_steps=steps[2]))
    assert [point["steps"] for point in few.records["oscillator"]["dopri5"]] == steps[:3]
    none = run(stiff_work_precision, replace(CURVES, max_steps=2)).measurements
    assert none[0].verdict == "not measured (no solve within 2 steps)"


def test_newton_s_method_with_and_without_matrices():
    outcome = run(newton_krylov, GRID)
    ratio, growth = outcome.measurements
    assert ratio.name == "Brusselator, 8 points: Newton-Krylov / dense Newton"
    assert ratio.high == pytest.approx(1 / 3)
    assert growth.name == "Brusselator, Newton-Krylov: bytes grow with this power of the points"
    assert 0.5 < growth.value <= growth.high == 1.1
    records = outcome.records["Brusselator, 8 points"]
    assert list(records) == ["dense Newton", "Newton-Krylov"]
    assert all(1e-9 < record["largest_error"] < 1e-3 for record in records.values())
    assert len({record["steps"] for record in records.values()}) == 1
    assert records["Newton-Krylov"]["evaluations"] > records["dense Newton"]["evaluations"]
    peaks = outcome.records["newton_krylov_memory"]
    dense = [peaks[f"{points} points"]["dense Newton"] for points in GRID.weighed]
    assert dense[1] / dense[0] > 2.5  # with the square, where they are many


def test_all_of_it_without_peers(no_peers, one_problem, monkeypatch):
    monkeypatch.setattr(compilation, "is_supported", lambda: False)
    other = replace(ENSEMBLE, title="3 POLLU", end=1e-10)
    small = Stiff(rober=ENSEMBLE, pollu=other, curves=CURVES, oscillators=OSCILLATORS, grid=GRID)
    outcome = run(lambda progress: small.run(progress))
    assert len(outcome.measurements) == 3 + 3 + 2 + 3 + 2 + 2
    assert {m.name for m in outcome.measurements if m.value is None} == {
        m.name for m in outcome.measurements if "compiled" in m.name or "SciPy" in m.name
    }
    assert set(outcome.pictures) == {"ratios", "curves"}
    assert {"3 ROBER", "3 POLLU", "oscillator", "automatic_choice", "Brusselator, 8 points"} < set(outcome.records)


def test_the_picture_has_a_row_for_every_problem():
    points = [Point(1e-3, 1e-3, 100, steps=12, seconds=0.1), Point(1e-8, 1e-8, 1000, steps=120, seconds=1.0)]
    curves = {"one": {"rodas5p": Curve(points), "SciPy Radau": Curve([])}, "other": {"auto": Curve(points)}}
    figure = draw_stiff(curves)
    assert len(figure.axes) == 6
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[12, 120], []]
    assert [line.get_ydata().tolist() for line in figure.axes[5].lines] == [[0.1, 1.0]]
