"""`torch.compile(fullgraph=True)`: the whole search is one program, which computes what the eager one does."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from dyn_numerics import Anderson, Armijo, Broyden, Chord, Newton, RootStatus, fixed_point, root_find
from dyn_numerics.loop import is_supported

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(300),
]

D = torch.float64


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


def circle(z, a):
    """Circles of radius `a` cut by a cubic; of the last sample, which has the radius zero, the root is double."""
    x, y = z.unbind(-1)
    return torch.stack([x**2 + y**2 - a, x**3 - y], dim=-1)


RADII = torch.tensor([0.5, 1.0, 2.0, 5.0, 0.0, -1.0], dtype=D)
START = torch.tensor([[1.0, 0.8], [1.0, 0.8], [1.1, 1.2], [1.2, 1.9], [1.0, 1.0], [1.0, 1.0]], dtype=D)


def check_alike(found, expected, atol=1e-10):
    """The last sample goes astray, chaotically, so that rounding decides where it ends."""
    torch.testing.assert_close(found.z[:-1], expected.z[:-1], rtol=0, atol=atol)
    torch.testing.assert_close(found.residual[:-1], expected.residual[:-1], rtol=1e-6, atol=atol)
    assert found.status[:-1] == expected.status[:-1]
    assert not found.status[-1].is_success
    assert not expected.status[-1].is_success
    assert torch.equal(found.stats.n_steps[:-1], expected.stats.n_steps[:-1])


@pytest.mark.parametrize(
    ("solver", "line_search", "backend"),
    [
        (Newton(), "armijo", "aot_eager"),
        (Broyden(memory=6), None, "inductor"),
        (Newton(), None, "aot_eager"),
        (Chord(every=3), Armijo(), "aot_eager"),
        (Broyden(memory=6, jacobian="scaled", update="bad"), None, "aot_eager"),
    ],
    ids=repr,
)
def test_roots_agree_with_eager(solver, line_search, backend):
    """Beside samples without a root and with a singular one."""

    def solve(z0, a):
        return root_find(
            circle, z0, args=(a,), solver=solver, line_search=line_search, rtol=1e-10, atol=1e-10, throw=False
        )

    compiled = torch.compile(solve, fullgraph=True, backend=backend)
    expected = solve(START, RADII)
    check_alike(compiled(START, RADII), expected)
    assert expected.status[:3] == [RootStatus.CONVERGED] * 3
    solvable = compiled(START[:-1], RADII[:-1])
    assert torch.equal(solvable.stats.n_evals, solve(START[:-1], RADII[:-1]).stats.n_evals)


@pytest.mark.parametrize("solver", [Anderson(m=3), "fixed_point"], ids=repr)
def test_fixed_points_of_pytrees_agree_with_eager(solver):
    """Values of tensors and tolerances do not compile again; a start that is solved costs one evaluation there, too."""

    def solve(z0, rate, rtol):
        def h(z):
            return {"a": torch.cos(rate * z["a"]) + 0.1 * z["b"].sum(-1, keepdim=True), "b": 0.3 * z["b"] + z["a"] / 4}

        return fixed_point(h, z0, solver=solver, rtol=rtol, atol=0.0, throw=False)

    counter = CompileCounter()
    compiled = torch.compile(solve, fullgraph=True, backend=counter)
    z0 = {"b": torch.ones(3, 2, dtype=D), "a": torch.zeros(3, 1, dtype=D)}
    for rate, rtol in ((0.3, 1e-6), (0.5, 1e-10), (0.7, 1e-12)):
        rates, tolerance = torch.full((3, 1), rate, dtype=D), torch.tensor(rtol, dtype=D)
        expected = solve(z0, rates, tolerance)
        found = compiled(z0, rates, tolerance)
        for name in ("a", "b"):
            torch.testing.assert_close(found.z[name], expected.z[name], rtol=0, atol=1e-10)
        assert torch.equal(found.stats.n_evals, expected.stats.n_evals)
    assert counter.frame_count == 1
    solved = compiled(expected.z, rates, torch.tensor(1e-3, dtype=D))
    assert solved.stats.n_evals.item() == 1
    assert torch.equal(solved.z["a"], expected.z["a"])


def test_one_tensor_may_be_both_tolerances():
    def solve(z0, tolerance):
        return fixed_point(torch.cos, z0, solver="fixed_point", rtol=tolerance, atol=tolerance).z

    given = torch.zeros(3, 2, dtype=D), torch.tensor(1e-9, dtype=D)
    found = torch.compile(solve, fullgraph=True, backend="aot_eager")(*given)
    torch.testing.assert_close(found, solve(*given), rtol=0, atol=1e-14)


def test_float32():
    def solve(z0, a):
        return root_find(circle, z0, args=(a,), solver="newton", throw=False)

    found = torch.compile(solve, fullgraph=True, backend="aot_eager")(START.float(), RADII.float())
    expected = solve(START.float(), RADII.float())
    assert found.z.dtype == torch.float32
    check_alike(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compact": True}, "compact: got True inside torch.compile"),
        ({"z0": START.to(torch.complex128)}, "complex128 inside torch.compile"),
        ({"z0": START.clone().requires_grad_()}, "requires a gradient"),
    ],
)
def test_refusals(options, message):
    z0 = options.pop("z0", START)
    with pytest.raises(Exception, match=message):
        torch.compile(lambda z: root_find(lambda z: z**2 - 2, z, **options).z, fullgraph=True, backend="eager")(z0)


def test_failures_are_raised_outside():
    sol = torch.compile(
        lambda z: root_find(lambda z: z**2 + 1, z, solver="newton"), fullgraph=True, backend="aot_eager"
    )(START)
    with pytest.raises(RuntimeError, match="samples 6 failed"):
        sol.raise_if_failed()
