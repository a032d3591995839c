"""Time spans: where outputs are, in both directions, long and short, and without a length."""

import math

import pytest
import torch

from dyn_numerics import FixedStep, PIDController, odeint

SOLVERS = ["rk4", "bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
GRIDS = {
    "uniform": torch.linspace(0, 3, 13, dtype=torch.float64),
    "non-uniform": torch.tensor([0.0, 1e-3, 0.1, 0.11, 0.5, 1.9, 1.95, 3.0], dtype=torch.float64),
    "two": torch.tensor([0.0, 3.0], dtype=torch.float64),
    "across 0": torch.tensor([-1.0, -0.2, 0.0, 0.7], dtype=torch.float64),
    "dense": torch.linspace(-0.3, 0.3, 301, dtype=torch.float64),
}

each_solver = pytest.mark.parametrize("solver", SOLVERS)


def options(solver):
    if solver == "rk4":
        return {"solver": solver, "step_size": 0.02}
    tolerance = 1e-7 if solver == "bosh3" else 1e-9
    return {"solver": solver, "rtol": tolerance, "atol": tolerance / 100}


@each_solver
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("t_span", GRIDS.values(), ids=GRIDS.keys())
def test_outputs_are_at_exactly_these_times(t_span, reverse, solver, growth):
    t_span = t_span.flip(0) if reverse else t_span
    t, x = odeint(growth, torch.ones(2).double(), t_span, **options(solver))
    assert torch.equal(t, t_span)
    expected = growth.exact(t_span, t_span[0].item())
    torch.testing.assert_close(x, expected.unsqueeze(1).expand(-1, 2), rtol=1e-6, atol=0)


@each_solver
def test_there_and_back(solver, growth):
    there = odeint(growth, torch.ones(1).double(), [0.0, 2.5], **options(solver)).x[-1]
    back = odeint(growth, there, [2.5, 0.0], **options(solver)).x[-1]
    assert back.item() == pytest.approx(1, abs=1e-6)
    assert there.item() == pytest.approx(math.exp(math.sin(2.5)), rel=1e-6)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor], ids=["list", "tuple", "tensor"])
def test_sequences_and_tensors(kind, growth):
    t_span = kind([0.0, 0.25, 1.5])
    t, x = odeint(growth, torch.ones(1).double(), t_span)
    assert t.tolist() == [0, 0.25, 1.5]
    assert torch.equal(x, odeint(growth, torch.ones(1).double(), [0.0, 0.25, 1.5]).x)


def test_whole_numbers_and_tensors_in_a_sequence(growth):
    expected = odeint(growth, torch.ones(1).double(), [0.0, 1.0, 2.0]).x
    for t_span in ((0, 1, 2), range(3), [torch.tensor(0.0), 1, torch.tensor(2.0).double()]):
        assert torch.equal(odeint(growth, torch.ones(1).double(), t_span).x, expected)


@pytest.mark.parametrize(
    ("t_span", "state", "returned"),
    [
        (torch.tensor([0.0, 1.0]).double(), torch.float32, torch.float64),
        (torch.tensor([0.0, 1.0]), torch.float64, torch.float32),
        ([0.0, 1.0], torch.float32, torch.float32),
        ([0.0, 1.0], torch.complex128, torch.float64),
    ],
)
def test_dtype_of_the_returned_times(t_span, state, returned, growth):
    """A tensor comes back as it was; a sequence becomes one in the real dtype of the state."""
    assert odeint(growth, torch.ones(1, dtype=state), t_span).t.dtype == returned


def test_times_closer_than_the_precision_of_the_state(growth):
    """Times are float64 inside, whatever the state is."""
    t_span = 1000 + torch.arange(5, dtype=torch.float64) * 1e-6
    x = odeint(lambda t, x: torch.ones_like(x), torch.zeros(1), t_span, rtol=1e-6, atol=1e-12).x
    torch.testing.assert_close(x[:, 0].double(), t_span - 1000, rtol=1e-5, atol=0)


@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
@pytest.mark.parametrize("t_span", [[1.0], [2.0, 2.0], [0.0, 0.0, 0.0], torch.tensor([-1.0])])
@pytest.mark.parametrize("mode", [{}, {"solver": "rk4"}, {"solver": "rk4", "step_size": 0.1}])
def test_no_length_returns_the_initial_state(t_span, save, mode, counted, growth):
    f = counted(growth)
    x0 = {"a": torch.ones(2, 3).double(), "b": torch.zeros(1).double()}
    sol = odeint(f, x0, t_span, save=save, **mode)
    count = 1 if save == "steps" else len(t_span)
    torch.testing.assert_close(sol.x["a"], x0["a"].expand(count, 2, 3), rtol=0, atol=0)
    assert sol.x["b"].shape == (count, 1)
    assert sol.t.shape == (count,)
    assert sol.status.is_success
    assert sol.stats.n_evals.item() == f.calls == sol.stats.n_steps.item() == 0
    assert sol.dense is None


@pytest.mark.parametrize("length", [1e-9, 1e-3, 1e9])
@each_solver
def test_lengths_of_the_span(length, solver):
    """x' = cos(t / length) / length, so that x = sin(t / length) in every unit of time."""
    t_span = torch.linspace(0, 3, 7, dtype=torch.float64) * length
    mode = {"step_size": 0.01 * length} if solver == "rk4" else {"rtol": 1e-7, "atol": 1e-9}
    sol = odeint(
        lambda t, x: torch.cos(t / length) / length + 0 * x, torch.zeros(1).double(), t_span, solver=solver, **mode
    )
    torch.testing.assert_close(sol.x[:, 0], torch.sin(t_span / length), rtol=0, atol=1e-6)
    assert sol.stats.n_steps < (301 if solver == "rk4" else 400)


def test_a_span_of_the_smallest_length():
    t0 = 1000.0
    t1 = math.nextafter(t0, 2000)
    for mode in ({}, {"solver": "rk4"}, {"solver": "rk4", "step_size": 1.0}):
        sol = odeint(lambda t, x: torch.ones_like(x), torch.zeros(1).double(), [t0, t1], **mode)
        assert sol.stats.n_steps == 1
        assert sol.x[-1].item() == pytest.approx(t1 - t0, rel=1e-14)


@pytest.mark.parametrize("solver", ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"])
def test_a_last_step_of_rounding_errors_alone_is_not_taken(solver):
    """A step that leaves less than 1 % of itself is stretched to the end."""
    constant = PIDController(first_step=0.25, factor_max=1 + 1e-12)

    def steps(end):
        x0 = torch.zeros(1).double()
        return odeint(lambda t, x: 0 * x, x0, [0.0, end], solver=solver, controller=constant, save="steps").t.diff()

    assert steps(1.002).tolist() == pytest.approx([0.25, 0.25, 0.25, 0.252], abs=1e-9)
    assert steps(1.003).tolist() == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.003], abs=1e-9)


def test_fixed_steps_follow_the_grid_whatever_it_is(growth):
    t_span = GRIDS["non-uniform"]
    sol = odeint(growth, torch.ones(1).double(), t_span, solver="euler", controller=FixedStep())
    x = 1.0
    for i in range(1, len(t_span)):
        x *= 1 + (t_span[i] - t_span[i - 1]).item() * math.cos(t_span[i - 1])
        assert sol.x[i].item() == pytest.approx(x, rel=1e-14)
