"""The reproductions on a small budget, end to end; the real ones are `nox -s demo`."""

from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.reproductions.density import Density
from dyn_bench.reproductions.moons import MoonsClassifier
from dyn_bench.reproductions.solver_interpolation import SolverInterpolation


def run(reproduction):
    with Progress(disable=True) as progress:
        return reproduction.run(progress)


def check_pictures(outcome, names):
    assert set(outcome.pictures) == names
    for figure in outcome.pictures.values():
        assert isinstance(figure, Figure)
        assert all(axes.has_data() for axes in figure.axes)


def test_solver_interpolation_moves_alpha_from_midpoint_to_heun():
    outcome = run(SolverInterpolation(iterations=15, seeds=(3, 4), batch=20, points=20))
    for alphas in outcome.records["alpha"].values():
        assert len(alphas) == 16
        assert alphas[0] == 0.5
        assert all(0 < later - earlier < 0.02 for earlier, later in pairwise(alphas))
    assert [m.passed for m in outcome.measurements] == [False, False]  # not there yet
    check_pictures(outcome, {"trajectories", "alpha"})


def test_moons_learns():
    outcome = run(MoonsClassifier(iterations=150, batch=64, test_points=1000))
    assert 0.95 <= outcome.measurements[0].value <= 1
    assert outcome.records["loss"][-1] < 0.5 * outcome.records["loss"][0]
    check_pictures(outcome, {"boundary", "flow"})


def test_density_learns_and_is_normalised():
    outcome = run(Density(iterations=20, batch=128, width=16, test_points=1000, grid=50))
    nll, mass = outcome.measurements
    assert outcome.records["entropy"] == pytest.approx(2.831578, abs=1e-5)
    assert outcome.records["entropy"] < nll.value < outcome.records["loss"][0]
    assert mass.value == pytest.approx(1.0, abs=0.02)
    check_pictures(outcome, {"samples"})


@pytest.mark.parametrize(
    "reproduction", [MoonsClassifier(iterations=3, test_points=100), Density(iterations=2, test_points=100, grid=10)]
)
def test_the_same_seed_gives_the_same_figures(reproduction):
    assert run(reproduction).records == run(reproduction).records
