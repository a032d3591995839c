"""The training of solvers on a small budget, end to end; the real one is `nox -s bench -- run trained-solvers`."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from dyn_bench.benchmarks import learned_controller
from dyn_bench.benchmarks.hyper_euler import Correction
from dyn_bench.benchmarks.learned_controller import Curve, Orbits
from dyn_bench.benchmarks.neural_controller import NeuralController
from dyn_bench.benchmarks.trained_solvers import TrainedSolvers
from dyn_bench.problems.duffing import Duffing
from dyn_bench.problems.two_body import TwoBody
from dyn_bench.protocols.evolution import evolve
from dyn_numerics import Euler, HyperStepper, PIDController, odeint

SMALL = TrainedSolvers(table_iterations=60, hyper_iterations=150, generations=1, problems=8, orbits=3, held_out=16)


def run(experiment):
    with Progress(disable=True) as progress:
        return experiment.run(progress)


def test_training_gains_on_problems_it_has_not_seen(monkeypatch):
    monkeypatch.setattr(learned_controller, "COEFFICIENTS", {"I": (0.0, 1.0, 0.0), "PI": (0.4, 0.3, 0.0)})
    monkeypatch.setattr(learned_controller, "SAFETIES", (0.8,))
    monkeypatch.setattr(learned_controller, "SWEPT", (1e-3, 1e-5, 1e-7))
    outcome = run(SMALL)
    found = {m.name: m.value for m in outcome.measurements}
    assert found["table: error / the classical method's"] < 0.9
    assert (found["table: order before"], found["table: order after"]) == (4, 1)
    assert found["HyperEuler: error / Euler's, equal evaluations"] < 0.5
    assert 0.5 < found["controller: evaluations / the tuned PID's, equal error"] < 2
    assert set(outcome.pictures) == {"table", "hyper-euler", "controller"}
    for figure in outcome.pictures.values():
        assert isinstance(figure, Figure)
        assert all(axes.has_data() for axes in figure.axes)
    table = outcome.records["table"]
    assert table["errors"]["classical"][0] > 50 * table["errors"]["classical"][-1]
    assert sum(table["b"]) == pytest.approx(1, abs=1e-14)
    assert run(SMALL).records == outcome.records


def test_without_training_a_correction_is_none():
    problem, x0 = Duffing.family(5, seed=3)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    with torch.no_grad():
        found = odeint(problem, x0, t, solver=HyperStepper(Euler(), Correction())).x
        assert torch.equal(found, odeint(problem, x0, t, solver=Euler()).x)


@pytest.mark.parametrize("pid", [PIDController(), PIDController(0.4, 0.3, safety=0.8), PIDController(0.49, 0.34, 0.1)])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_without_training_a_neural_controller_is_its_pid(pid, stepping):
    x0 = TwoBody.starts(3, seed=5)
    options = {"rtol": 1e-6, "atol": 1e-6, "solver": "dopri5", "stepping": stepping, "save": "steps"}
    neural = NeuralController(NeuralController.around(pid, seed=0))
    with torch.no_grad():
        found = odeint(TwoBody(), x0, [0.0, 7.0], controller=neural, **options)
        expected = odeint(TwoBody(), x0, [0.0, 7.0], controller=pid, **options)
    torch.testing.assert_close(found.t, expected.t, rtol=1e-6, atol=0)  # errors of short steps are near rounding


def test_samples_may_have_controllers_of_their_own():
    pids = [PIDController(), PIDController(0.4, 0.3, safety=0.8)]
    orbits = Orbits(3, seed=0)
    weights = torch.stack([NeuralController.around(pid, seed=0) for pid in pids])
    together = orbits.solve(NeuralController(weights.repeat_interleave(2 * 3, 0)), (1e-4, 1e-6), copies=2)
    for found, pid in zip(zip(*together, strict=True), pids, strict=True):
        for values, expected in zip(found, orbits.solve(pid, (1e-4, 1e-6)), strict=True):
            torch.testing.assert_close(values, expected[0], rtol=1e-6, atol=1e-9)


def test_evaluations_between_the_measured_errors():
    curve = Curve(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([-1.0, -3.0, -2.5]))  # errors fall with evaluations
    found = curve.evaluations_at(torch.tensor([-1.0, -2.75, -1.75]))
    torch.testing.assert_close(found, torch.tensor([1.0, 2.5, 1.5], dtype=found.dtype))


def test_an_evolution_goes_downhill():
    best = torch.tensor([0.5, -0.3, 0.0])

    def cost(x):
        return (x - best).abs().sum(-1).floor() + (x - best).square().sum(-1)

    found = evolve(cost, torch.zeros(3), [0.05] * 80 + [0.01] * 40, pairs=10, spread=0.1, seed=1)
    torch.testing.assert_close(found, best, rtol=0, atol=0.05)


def test_the_energy_of_an_orbit_and_of_an_oscillator_stays():
    x0 = TwoBody.starts(4, seed=1)
    x = odeint(TwoBody(), x0, [0.0, 2 * math.pi], solver="dopri8", rtol=1e-12, atol=1e-12).x
    torch.testing.assert_close(x[-1], x0, rtol=0, atol=1e-8)  # after one period
    problem, x0 = Duffing.family(4, seed=1)
    x = odeint(problem, x0, [0.0, 5.0], solver="dopri8", rtol=1e-12, atol=1e-12).x
    q, velocity = x.unbind(-1)
    energy = velocity**2 / 2 + problem.stiffness * q**2 / 2 + problem.cubic * q**4 / 4
    torch.testing.assert_close(energy[-1], energy[0], rtol=1e-10, atol=0)
