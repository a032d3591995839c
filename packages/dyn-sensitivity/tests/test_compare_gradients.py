"""The figures of a comparison against those that are known otherwise."""

import sys

import pytest
import torch
from torch import nn

from dyn_numerics import ExplicitRungeKutta, SplitField
from dyn_numerics.ode.tableaus.explicit import BOSH3
from dyn_sensitivity import Autograd, Backsolve, GradientComparison, MeasuredGradient, compare_gradients, odeint
from dyn_sensitivity.ode.odeint import ALGORITHMS

TIMES = [0.0, 2.0]


def decay(t, x, rate):
    return -rate * x


def end(solution):
    return solution.x[-1].sum()


class Doubled(Autograd):
    """Twice the gradient."""

    def solve(self, *problem, **options):
        solution = super().solve(*problem, **options)
        solution.x.register_hook(lambda gradient: 2 * gradient)
        return solution


class Conjugated(Autograd):
    """The conjugate of the gradient."""

    def solve(self, *problem, **options):
        solution = super().solve(*problem, **options)
        solution.x.register_hook(torch.conj)
        return solution


class Breaking(Autograd):
    """Fails in the backward pass."""

    def solve(self, *problem, **options):
        solution = super().solve(*problem, **options)

        def fail(gradient):
            raise RuntimeError("breaks,\n  always")

        solution.x.register_hook(fail)
        return solution


def compare(f=decay, x0=None, t_span=TIMES, *, loss=end, algorithms=("autograd",), **options):
    x0 = torch.ones(1) if x0 is None else x0
    return compare_gradients(f, x0, t_span, loss=loss, algorithms=algorithms, repeats=1, **options)


@pytest.fixture
def rate():
    return torch.tensor(0.7, requires_grad=True)


def test_an_error_is_the_distance_from_the_true_gradient(rate):
    exact = -2 * torch.exp(-2 * rate.detach())
    for tolerance in (1e-3, 1e-6):
        options = {"args": (rate,), "rtol": tolerance, "atol": tolerance}
        (got,) = torch.autograd.grad(odeint(decay, torch.ones(1), TIMES, **options).x[-1].sum(), rate)
        (row,) = compare(**options).rows
        assert row.error == pytest.approx(abs(got / exact - 1).item(), rel=0.02)


def test_the_reference_of_fixed_steps_has_finer_ones(rate):
    # Euler's steps of 0.1: the derivative of (1 - 0.1 a)^20.
    error = abs((1 - 0.1 * 0.7) ** 19 / torch.exp(torch.tensor(-1.4)).item() - 1)
    grid = torch.linspace(0, 2, 21)
    for t_span, step_size in ((TIMES, 0.1), (grid, None)):
        (row,) = compare(t_span=t_span, args=(rate,), solver="euler", step_size=step_size).rows
        assert row.error == pytest.approx(error, rel=0.15)  # the reference has a sixteenth of it
        exact = {"solver": "dopri5", "step_size": None, "rtol": 1e-10, "atol": 1e-10}
        (row,) = compare(t_span=t_span, args=(rate,), solver="euler", step_size=step_size, reference=exact).rows
        assert row.error == pytest.approx(error, rel=1e-6)


def test_the_reference_takes_as_many_steps_as_it_needs(rate):
    (row,) = compare(args=(rate,), sensitivity="adjoint", max_steps=5).rows
    assert row.error < 0.01


def test_a_wrong_gradient_shows(rate):
    right, wrong = compare(args=(rate,), algorithms={"right": Autograd(), "wrong": Doubled()}, rtol=1e-8).rows
    assert right.error < 1e-5
    assert wrong.error == pytest.approx(1, abs=1e-5)


def test_evaluations_are_those_of_the_field(rate):
    calls = 0

    def counted(t, x, rate):
        nonlocal calls
        calls += 1
        return decay(t, x, rate)

    rows = {row.algorithm: row for row in compare(args=(rate,), algorithms=["autograd", "adjoint", "checkpoint"]).rows}
    for name, row in rows.items():
        calls = 0
        loss = end(odeint(counted, torch.ones(1), TIMES, args=(rate,), sensitivity=name))
        assert row.forward_evals == calls
        loss.backward()
        assert row.backward_evals == calls - row.forward_evals
    assert rows["autograd"].backward_evals == 0 < rows["adjoint"].backward_evals


def test_both_functions_of_a_split_field_are_counted(rate):
    field = SplitField(lambda t, p, rate: p, lambda t, q, rate: -rate * q)
    pair = torch.ones(3), torch.zeros(3)
    options = {"args": (rate,), "solver": "verlet", "step_size": 0.01}
    (row,) = compare(field, pair, loss=lambda sol: sol.x[0][-1].sum(), **options).rows
    assert row.forward_evals == int(odeint(field, pair, TIMES, **options).stats.n_evals)
    assert row.error < 1e-3


def test_memory_is_what_a_solve_keeps_and_takes(rate):
    def kept(step_size):
        rows = compare(
            x0=torch.ones(1000),
            algorithms=["autograd", "adjoint"],
            args=(rate,),
            solver="rk4",
            step_size=step_size,
        ).rows
        assert all(row.peak_bytes > row.kept_bytes for row in rows)
        return [row.kept_bytes for row in rows]

    (few, constant), (many, same) = kept(0.1), kept(0.05)
    # Of each stage the state that is multiplied with the rate.
    assert many - few == pytest.approx(20 * 4 * 8000, rel=0.02)
    assert constant == same < 5 * 8000


def test_seconds_are_the_median_of_what_a_clock_tells(rate, monkeypatch):
    ticks = iter([0, 5, 10, 11, 20, 23])  # three times, start and end
    module = sys.modules["dyn_sensitivity.compare_gradients"]
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    (row,) = compare_gradients(decay, torch.ones(1), TIMES, loss=end, args=(rate,), algorithms=["autograd"]).rows
    assert row.seconds == 3


def test_what_refuses_or_fails_gets_its_sentence_and_the_others_their_figures(rate):
    table = compare(args=(rate,), algorithms={"broken": Breaking(), "no inverse": "reversible", "good": "autograd"})
    broken, refused, good = table.rows
    assert broken.failure == "breaks, always"
    assert "no exact inverse step" in refused.failure
    assert good.failure is None
    lines = str(table).splitlines()
    assert len(lines) == 4
    assert lines[1] == "broken      breaks, always"


def test_every_name_without_being_asked(rate):
    table = compare_gradients(decay, torch.ones(1), TIMES, loss=end, args=(rate,), repeats=1)
    assert [row.algorithm for row in table.rows] == list(ALGORITHMS)


def test_what_requires_gradients_is_left_alone(rate):
    net, x0 = nn.Linear(2, 2), torch.ones(3, 2, requires_grad=True)
    table = compare(lambda t, x, rate: rate * net(x), x0, args=(rate,), algorithms=["autograd", "adjoint"])
    assert all(row.error < 0.01 for row in table.rows)
    assert [tensor.grad for tensor in (rate, x0, net.weight, net.bias)] == [None] * 4


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_reversed_time_and_structured_states(stepping):
    x0 = {"a": torch.ones(3, 2, requires_grad=True), "b": torch.ones(3)}

    def field(t, x):
        return {"a": -x["a"] * x["b"].unsqueeze(-1), "b": torch.sin(x["b"])}

    loss = {"loss": lambda sol: sol.x["a"].square().sum(), "stepping": stepping, "rtol": 1e-6, "atol": 1e-8}
    for row in compare(field, x0, [1.0, 0.5, 0.0], algorithms=["autograd", "adjoint"], **loss).rows:
        assert row.error < 1e-4


def test_complex_states():
    x0 = torch.tensor([1 + 1j, 2.0], requires_grad=True)
    options = {"loss": lambda sol: sol.x[-1].abs().square().sum(), "rtol": 1e-8, "atol": 1e-8}
    algorithms = {"right": Autograd(), "conjugated": Conjugated()}
    right, conjugated = compare(lambda t, x: -0.1 * x, x0, algorithms=algorithms, **options).rows
    assert right.error < 1e-6
    assert conjugated.error == pytest.approx(2 / 6**0.5, rel=1e-5)  # 2i of 1 + i and 2


def test_a_trained_method_is_among_what_wants_gradients(rate):
    solver = ExplicitRungeKutta(BOSH3, trainable=True)
    through, adjoint = compare(algorithms=["autograd", "adjoint"], args=(rate,), solver=solver).rows
    assert through.failure is None
    assert "trainable solver" in adjoint.failure


def test_misuse_is_refused(rate):
    with pytest.raises(TypeError, match=r"loss: got .*expected a function of the Solution"):
        compare(args=(rate,), loss=torch.ones(1))
    for loss in (lambda sol: sol.x, lambda sol: 3.0, lambda sol: sol.x.sum().detach()):
        with pytest.raises(ValueError, match=r"loss: got .*expected a real tensor of shape \[\]"):
            compare(args=(rate,), loss=loss)
    with pytest.raises(ValueError, match="expected one of autograd"):
        compare(args=(rate,), algorithms=["autograph"])
    with pytest.raises(ValueError, match=r"algorithms: got two called .*Backsolve"):
        compare(args=(rate,), algorithms=[Backsolve(), Backsolve()])
    for algorithms, kind in ((3, "int"), ("adjoint", "str"), (Backsolve(), "Backsolve")):
        with pytest.raises(TypeError, match=rf"algorithms: got a {kind}, expected several names or algorithms.*try"):
            compare(args=(rate,), algorithms=algorithms)
    with pytest.raises(TypeError, match=r"reference: got a int, expected options of odeint; try"):
        compare(args=(rate,), reference=3)
    with pytest.raises(TypeError, match=r"params: got a int, expected a sequence of tensors"):
        compare(args=(rate,), params=3)
    with pytest.raises(ValueError, match="nothing that requires a gradient"):
        compare(args=(0.7,))
    with pytest.raises(ValueError, match="repeats"):
        compare_gradients(decay, torch.ones(1), TIMES, loss=end, args=(rate,), repeats=0)


def test_a_table_is_aligned():
    rows = MeasuredGradient("autograd", 2e-5, 0.0123, 40_960, 51_200, 92, 0), MeasuredGradient("x", failure="no")
    head, first, second = str(GradientComparison(rows)).splitlines()
    assert head.index("error") == first.index("2.0e-05") == second.index("no")
    assert head.endswith("backward calls")
    assert first.split() == ["autograd", "2.0e-05", "12.30", "41.0", "51.2", "92", "0"]
