"""One step of every table with a field that answers whatever it likes: nodes, stage inputs, weights and error.

In the manner of torchode's tests of single steps: nothing here knows a differential equation.
"""

import copy
import pickle
from fractions import Fraction

import pytest
import torch

from dyn_numerics import (
    Bosh3,
    ButcherTableau,
    Dopri5,
    Dopri8,
    Euler,
    ExplicitRungeKutta,
    Heun,
    Midpoint,
    Ralston,
    RungeKutta4,
    Tsit5,
    Vern7,
)
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative

STEPPERS = [Euler, Midpoint, Heun, Ralston, RungeKutta4, Bosh3, Dopri5, Tsit5, Vern7, Dopri8]

each_stepper = pytest.mark.parametrize("stepper", STEPPERS, ids=lambda stepper: stepper.__name__)
both_directions = pytest.mark.parametrize(("t0", "t1"), [(0.25, 1.0), (1.0, 0.25)], ids=["forward", "reversed"])


def vector(weights):
    return torch.tensor([float(w) for w in weights], dtype=torch.float64)


class MockField:
    """Answers with prepared slopes, one after the other, and keeps what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.times, self.states = [], []

    def __call__(self, t, x):
        self.times.append(t)
        self.states.append(x)
        return self.answers[len(self.times) - 1]


@pytest.fixture
def x():
    return torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def slopes(count):
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


@each_stepper
@both_directions
@pytest.mark.parametrize("carried", [False, True])
def test_stage_times_and_states(stepper, t0, t1, carried, x):
    method, dt = stepper(), t1 - t0
    k = slopes(method.tableau.stages)
    f = MockField(k[1:] if carried else k)
    step = method.step(f, t0, t1, x, k[0] if carried else None)

    expected_times = t0 + dt * vector(method.tableau.c)
    expected_states = [x + dt * vector(row) @ k[: len(row)] for row in method.tableau.a]
    first = 1 if carried else 0
    assert len(f.times) == method.tableau.stages - first
    assert all(t.shape == () and t.dtype == torch.float64 for t in f.times)
    torch.testing.assert_close(torch.tensor(f.times).double(), expected_times[first:], rtol=0, atol=1e-15)
    for state, expected in zip(f.states, expected_states[first:], strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.stack(list(step.stages)), k, rtol=0, atol=0)


@each_stepper
@both_directions
def test_new_state_and_error(stepper, t0, t1, x):
    method, dt = stepper(), t1 - t0
    k = slopes(method.tableau.stages)
    step = method.step(MockField(k), t0, t1, x, None)
    torch.testing.assert_close(step.x, x + dt * vector(method.tableau.b) @ k, rtol=0, atol=1e-13)
    if method.tableau.b_hat is None:
        assert step.error is None
        assert method.error_order is None
    else:
        first, *more = (dt * vector(weights) @ k for weights in method.tableau.error_weights)
        torch.testing.assert_close(step.error, first, rtol=0, atol=1e-13)
        assert method.error_order == method.tableau.error_order
        measured = method.measure_error(step, torch.linalg.vector_norm)
        expected = first.norm()
        if more:  # Hairer's combination
            expected = first.norm() ** 2 / (first.norm() ** 2 + 0.01 * more[0].norm() ** 2).sqrt()
        torch.testing.assert_close(measured, expected)


@each_stepper
def test_what_the_next_step_and_a_retry_are_handed(stepper, x):
    method = stepper()
    k = slopes(method.tableau.stages + 1)
    f = MockField(k)
    step = method.step(f, 0.0, 0.5, x, None)
    assert step.retry is k[0] or torch.equal(step.retry, k[0])
    complete = method.complete(f, 0.5, step)
    if method.tableau.reuses_last_stage:
        assert torch.equal(step.carry, k[-2])
        assert complete is step
        assert len(f.times) == method.tableau.stages
    else:
        assert step.carry is None
        assert torch.equal(complete.carry, k[-1])
        assert f.times[-1] == 0.5
        assert f.states[-1] is step.x


@each_stepper
def test_interpolant_meets_both_ends(stepper, x):
    """Value and slope at both ends, with slopes that no field has: the cubic and the native output alike."""
    method, dt = stepper(), -0.5
    k = slopes(method.tableau.stages + 1 + method.dense_evals)
    f = MockField(k)
    step = method.complete(f, 0.5, method.step(f, 1.0, 0.5, x, None))
    coefficients = method.interpolant(f, 1.0, 0.5, x, step)
    assert len(coefficients) == method.dense_degree + 1
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(evaluate(coefficients, ends), torch.stack([x, step.x]), rtol=0, atol=1e-12)
    derivative = evaluate_derivative(coefficients, ends) / dt
    torch.testing.assert_close(derivative, torch.stack([k[0], step.carry]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("grad", [False, True], ids=["by products", "by element"])
@pytest.mark.parametrize("stepper", [Dopri5, Tsit5, Vern7, Dopri8], ids=lambda stepper: stepper.__name__)
def test_native_interpolant_inside_the_step(stepper, grad, x):
    """And the times and states of the stages that it takes beyond those of the step."""
    method, t0, dt, theta = stepper(), 1.0, -0.5, 0.3
    table = method.tableau
    k = slopes(len(table.dense_stages))
    f = MockField(k)
    with torch.set_grad_enabled(grad):
        step = method.complete(f, t0 + dt, method.step(f, t0, t0 + dt, x, None))
        before = len(f.times)
        coefficients = method.interpolant(f, t0, t0 + dt, x, step)
    value = evaluate(coefficients, torch.tensor([theta], dtype=torch.float64))
    b = vector(sum(float(c) * theta**power for power, c in enumerate(row, start=1)) for row in table.dense)
    torch.testing.assert_close(value[0], x + dt * b @ k, rtol=0, atol=1e-12)
    assert len(f.times) - before == method.dense_evals == len(table.a_dense)
    for t, state, row in zip(f.times[before:], f.states[before:], table.a_dense, strict=True):
        assert t.item() == pytest.approx(t0 + dt * float(sum(row)), abs=1e-15)
        torch.testing.assert_close(state, x + dt * vector(row) @ k[: len(row)], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "of_times"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.complex64, torch.float32),
        (torch.complex128, torch.float64),
    ],
)
def test_everything_is_in_the_dtype_of_the_state(dtype, of_times):
    seen = []

    def f(t, x):
        seen.append(t.dtype)
        return -x

    method = Tsit5()
    step = method.step(f, 0.0, 0.25, torch.ones(2, dtype=dtype), None)
    assert step.x.dtype == dtype
    assert step.error.dtype == step.stages[0].dtype == torch.promote_types(dtype, torch.float32)
    assert set(seen) == {of_times}
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        step.x.to(torch.complex128).real, torch.full((2,), 0.7788).double(), rtol=0, atol=tolerance + 1e-4
    )


@each_stepper
@pytest.mark.parametrize("trainable", [False, True])
def test_copies_step_alike(stepper, trainable, x):
    method = stepper(trainable=trainable)
    if trainable:
        with torch.no_grad():
            method.b_entries.add_(torch.linspace(0, 0.01, method.tableau.stages, dtype=torch.float64))

    def f(t, x):
        return t - x**2

    expected = method.step(f, 0.0, 0.1, x, None)  # and fills the cache that a copy must not need
    loaded = stepper(trainable=trainable)
    loaded.load_state_dict(method.state_dict())
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method)), loaded):
        assert torch.equal(other.step(f, 0.0, 0.1, x, None).x, expected.x)
        assert repr(other) == repr(method)


def test_a_fixed_method_has_no_parameters_and_no_state():
    assert not list(Tsit5().parameters())
    assert not Tsit5().state_dict()


def test_repr_names_the_table():
    assert repr(Dopri5()) == "Dopri5(dopri5, order=5)"
    assert repr(ExplicitRungeKutta(Heun.table, trainable=True)) == "ExplicitRungeKutta(heun, order=2, trainable=True)"


def test_the_error_order_is_that_of_the_lower_solution():
    """Advancing the lower solution of a pair: the estimate is an error of that one."""
    pair = {"name": "euler(heun)", "a": [[], [1]], "source": "here"}
    half = [Fraction(1, 2), Fraction(1, 2)]
    lower = ButcherTableau(**pair, order=1, b=[1, 0], b_hat=half, embedded_order=2)
    higher = ButcherTableau(**pair, order=2, b=half, b_hat=[1, 0], embedded_order=1)
    assert ExplicitRungeKutta(lower).error_order == ExplicitRungeKutta(higher).error_order == 1


def run_step(method, t0, t1, x, k):
    """One step on prepared slopes: what the field was asked, and what came out."""
    f = MockField(k)
    step = method.step(f, t0, t1, x, None)
    return f.times, f.states, step.x, step.error


@pytest.mark.parametrize("mode", ["no_grad", "grad", "compiled"])
@each_stepper
def test_every_problem_has_its_own_nodes_stage_inputs_and_weights(stepper, mode):
    """Steps of another length and direction for every problem, in each of the ways to add slopes up."""
    method = stepper()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    t0 = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)
    dt = torch.tensor([0.5, -0.25, 2.0], dtype=torch.float64)
    k = torch.randn(method.tableau.stages, 3, 2, dtype=torch.float64, generator=generator)
    run = torch.compile(run_step, backend="eager", fullgraph=True) if mode == "compiled" else run_step
    torch._dynamo.reset()
    with torch.set_grad_enabled(mode == "grad"):
        times, states, new, error = run(method, t0, t0 + dt, x, k)

    def summed(weights):
        return dt.unsqueeze(1) * torch.einsum("j,jbn->bn", vector(weights), k[: len(weights)])

    assert len(times) == method.tableau.stages
    for at, state, c, row in zip(times, states, method.tableau.c, method.tableau.a, strict=True):
        torch.testing.assert_close(at, t0 + float(c) * dt, rtol=0, atol=4e-15)
        torch.testing.assert_close(state, x + summed(row) if len(row) else x, rtol=0, atol=1e-13)
    torch.testing.assert_close(new, x + summed(method.tableau.b), rtol=0, atol=1e-13)
    if method.tableau.b_hat is not None:
        torch.testing.assert_close(error, summed(method.tableau.error_weights[0]), rtol=0, atol=1e-13)


def test_slopes_are_kept_as_long_as_somebody_has_them(x):
    """Workspaces are used again, but not those of a step that is still there."""
    method, k = Dopri5(), slopes(7)
    with torch.no_grad():
        first = method.step(MockField(k), 0.0, 0.5, x, None)
        before = method.interpolant(None, 0.0, 0.5, x, first)
        for _ in range(3):
            method.step(MockField(-k), 0.0, 0.25, x, None)
        assert torch.equal(method.interpolant(None, 0.0, 0.5, x, first), before)

        def inside(t, y):
            method.step(MockField(-k), 0.0, 0.25, x, None)  # a solve within the field, with the same method
            return answers(t, y)

        answers = MockField(k)
        nested = method.step(inside, 0.0, 0.5, x, None)
    assert torch.equal(nested.x, first.x)
    assert torch.equal(nested.error, first.error)
