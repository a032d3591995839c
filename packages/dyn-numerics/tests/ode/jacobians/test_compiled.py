"""`torch.compile(fullgraph=True)`: Jacobians made and solved with in a compiled loop are those of Python."""

import pytest
import torch

from dyn_numerics import BandedJacobian, BlockDiagonalJacobian, DenseJacobian, KrylovJacobian
from dyn_numerics.loop import is_supported, repeat
from dyn_numerics.ode.stepper import in_loop

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")

D = torch.float64


def loop(jacobian, x, t, shift):
    """A few linearly implicit steps, and the calls of the field that nobody counts."""

    def f(t, x):
        around = torch.nn.functional.pad(x, (1, 1))
        return torch.sin(t).unsqueeze(-1) * around[..., :-2] - x**3 * around[..., 2:]

    def body(k, x, n_evals):
        near = jacobian.linearise(f, t + 0.1 * k, x, with_rate=True)
        factors = jacobian.factorise(near.jacobian, shift)
        first = jacobian.solve(f, factors, shift.unsqueeze(-1) * near.slope)
        second = jacobian.solve(f, factors, first.x + (shift**2).unsqueeze(-1) * near.rate)
        return k + 1, x + second.x, n_evals + first.n_evals + second.n_evals

    zero = torch.zeros((), dtype=torch.int64)
    return repeat(lambda k, x, n_evals: k < 3, body, (zero, x, zero))[1:]


@pytest.mark.parametrize(
    ("jacobian", "size", "backend"),
    [
        (DenseJacobian(), 3, "inductor"),
        (DenseJacobian(), 9, "aot_eager"),
        (BlockDiagonalJacobian(7), 7, "aot_eager"),
        (BandedJacobian(1, 1), 20, "aot_eager"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else str(value),
)
def test_as_in_python(jacobian, size, backend, random, context):
    x, t, shift = random(5, size), random(5, seed=1), 0.1 + 0.02 * random(5, seed=2)
    x[2, 1] = torch.nan
    jacobian = jacobian.on(context(x, True))

    def run(x, t, shift):
        return loop(jacobian, x, t, shift)

    with torch.no_grad():
        found, n_evals = torch.compile(run, fullgraph=True, backend=backend, dynamic=False)(x, t, shift)
        expected, _ = run(x, t, shift)
    assert found[2].isnan().any()
    assert found[[0, 1, 3, 4]].isfinite().all()
    torch.testing.assert_close(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]], rtol=1e-12, atol=1e-12)
    assert n_evals == 0


def test_calls_of_the_field_are_counted(random, context):
    """As many as Python makes, two loops within one another and within the steps."""
    x, t, calls = random(4, 9), random(4, seed=1), []

    def f(t, x):
        if not torch.compiler.is_compiling():
            calls.append(t)
        return torch.sin(x * t.unsqueeze(-1)) - 3 * x * x.roll(1, -1)

    jacobian = KrylovJacobian().on(context(x, True))

    def run(x):
        def body(k, x, n_evals):
            factors = jacobian.factorise(jacobian.linearise(in_loop(f), t, x).jacobian, 0.1)
            solved = jacobian.solve(f, factors, x)
            return k + 1, solved.x, n_evals + solved.n_evals + (1 if torch.compiler.is_compiling() else 0)

        zero = torch.zeros((), dtype=torch.int64)
        return repeat(lambda k, x, n_evals: k < 2, body, (zero, x, zero))[1:]

    with torch.no_grad():
        expected, _ = run(x)
        found, n_evals = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=False)(x)
    assert n_evals.item() == len(calls)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_another_size_needs_no_program_of_its_own(random):
    """Sizes become symbols with the second one; torch 2.13 differentiates no point in fewer dimensions than its tangent then."""
    programs = []

    def backend(graph, inputs):
        programs.append(graph)
        return graph.forward

    def run(x, t):
        return DenseJacobian().linearise(lambda t, x: x**2 * t.unsqueeze(-1), t, x, with_rate=True)

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    for batch in (5, 6, 8):
        x, t = random(batch, 3), random(batch, seed=1)
        for found, expected in zip(compiled(x, t), run(x, t), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert len(programs) == 2
