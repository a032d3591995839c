"""What `root_find` and `fixed_point` promise of every sample, whatever the method."""

import math

import pytest
import torch

from dyn_numerics import (
    Anderson,
    Bisection,
    Broyden,
    Chord,
    CoupledSamplesError,
    FixedPointIteration,
    LevenbergMarquardt,
    MaxStepsError,
    Newton,
    NewtonKrylov,
    NonFiniteError,
    PerSample,
    RootStatus,
    SingularJacobianError,
    StagnationError,
    Termination,
    fixed_point,
    root_find,
)
from dyn_numerics.loop import is_supported

D = torch.float64

METHODS = [
    Newton(),
    Chord(every=2),
    Broyden(jacobian="exact"),
    Broyden(update="bad", jacobian=-1.0),
    Broyden(memory=3, jacobian="scaled"),
    Anderson(),
    FixedPointIteration(0.5),
    LevenbergMarquardt(),
    NewtonKrylov(),
    Bisection(),
]
"""Methods that all find the root of `roots`."""

SEARCHES = [(solver, search) for solver in METHODS for search in (None, "armijo") if solver.searches or not search]
"""The same with every line search that they take."""


def roots(z, a):
    """An elementwise function with the root `a`, of slope -1 there and elsewhere near it."""
    return (a - z) * (1 + 0.1 * (z - a) ** 2)


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)


def problem(batch=6, size=3, dtype=D):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(batch, size, generator=generator, dtype=D).to(dtype)
    return a + 0.5 * torch.rand(batch, size, generator=generator, dtype=D).to(dtype), a


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_finds_the_root_of_every_sample(solver):
    z0, a = problem()
    sol = root_find(roots, z0, solver=solver, args=(a,), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sol.z, a, rtol=0, atol=1e-10)
    assert sol.status == [RootStatus.CONVERGED] * len(z0)
    norms = roots(sol.z, a).square().mean(-1).sqrt()
    torch.testing.assert_close(sol.residual, norms, rtol=1e-12, atol=1e-300)
    assert bool((sol.residual <= 1e-12 * (1 + roots(z0, a).square().mean(-1).sqrt())).all())
    z, stats = sol
    assert z is sol.z
    assert stats is sol.stats


@pytest.mark.parametrize("solver", METHODS, ids=repr)
@pytest.mark.parametrize("handler", [root_find, fixed_point])
def test_start_that_is_a_solution_costs_one_evaluation_and_moves_nothing(solver, handler):
    z0, _ = problem()
    function = Counted((lambda z: z - z0) if handler is root_find else (lambda z: z + 0 * (z - z0)))
    sol = handler(function, z0, solver=solver)
    assert function.calls == 1
    assert sol.stats.n_evals.item() == 1
    assert sol.stats.n_steps.tolist() == [0] * len(z0)
    assert torch.equal(sol.z, z0)
    assert sol.residual.tolist() == [0] * len(z0)


@pytest.mark.parametrize(("solver", "line_search"), SEARCHES, ids=repr)
def test_failing_neighbours_change_nothing(solver, line_search):
    """A sample without a root, one that is NaN from the start, and one that becomes NaN, beside solvable ones."""
    z0, a = problem(batch=5)

    def g(z, a, kind):
        kind = kind.unsqueeze(-1)
        value = roots(z, a)
        value = torch.where(kind == 1, 1 + (z - a) ** 2, value)  # no root
        value = torch.where(kind == 2, torch.nan, value)
        return torch.where((kind == 3) & (z != z0[3]), torch.nan, value)

    options = {"solver": solver, "line_search": line_search, "rtol": 1e-10, "atol": 1e-10, "throw": False}
    good = root_find(g, z0, args=(a, torch.zeros(5, dtype=D)), **options)
    mixed = root_find(g, z0, args=(a, torch.tensor([0, 1, 2, 3, 0], dtype=D)), **options)
    for i in (0, 4):
        assert torch.equal(mixed.z[i], good.z[i])
        assert mixed.status[i] == good.status[i]
        assert mixed.stats.n_steps[i] == good.stats.n_steps[i]
    assert mixed.status[1] in (
        (RootStatus.NO_SIGN_CHANGE,)
        if isinstance(solver, Bisection)
        else (RootStatus.STAGNATED, RootStatus.DIVERGED, RootStatus.SINGULAR, RootStatus.MAX_STEPS)
    )
    assert mixed.status[2] is RootStatus.NON_FINITE
    assert math.isnan(mixed.residual[2])
    monotone = line_search or isinstance(solver, LevenbergMarquardt)
    elsewhere = RootStatus.STAGNATED if monotone else RootStatus.NON_FINITE
    assert mixed.status[3] is (RootStatus.NO_SIGN_CHANGE if isinstance(solver, Bisection) else elsewhere)
    assert torch.equal(mixed.z[3], z0[3])  # the best iterate is the start
    torch.testing.assert_close(mixed.residual[3], roots(z0, a)[3].square().mean().sqrt(), rtol=1e-14, atol=0)


def test_best_iterate_is_returned():
    """Picard's iteration of a map that repels: the start is the best that is ever seen."""
    sol = fixed_point(lambda z: 3 * z, torch.ones(1, 1, dtype=D), solver="fixed_point", throw=False, max_steps=5)
    assert sol.status == [RootStatus.MAX_STEPS]
    assert sol.z.item() == 1
    assert sol.residual.item() == 2


def test_half_the_steps_up_then_down_returns_the_lowest():
    """Newton's method on arctan from beyond its basin of attraction goes up at every step."""
    z0 = torch.full((1, 1), 1.5, dtype=D)
    sol = root_find(torch.atan, z0, solver="newton", throw=False, max_steps=4)
    assert torch.equal(sol.z, z0)
    assert sol.residual.item() == pytest.approx(math.atan(1.5))


@pytest.mark.parametrize(
    ("g", "z0", "options", "status", "error"),
    [
        (lambda z: z**2 + 1, 0.7, {}, RootStatus.STAGNATED, StagnationError),
        (lambda z: z**2 + 1, 0.7, {"line_search": "armijo"}, RootStatus.STAGNATED, StagnationError),
        (lambda z: z**3 - 2 * z + 2, 0.0, {}, RootStatus.STAGNATED, StagnationError),  # a cycle of two
        (lambda z: z**2 - 1, 0.0, {}, RootStatus.SINGULAR, SingularJacobianError),
        (lambda z: torch.log(z) + 3, 1.0, {}, RootStatus.NON_FINITE, NonFiniteError),
        (lambda z: z**2 - 2, 1.0, {"max_steps": 2}, RootStatus.MAX_STEPS, MaxStepsError),
    ],
)
def test_failures_have_a_status_an_error_and_the_partial_result(g, z0, options, status, error):
    z0 = torch.tensor([[z0], [z0]], dtype=D)
    sol = root_find(g, z0, solver="newton", throw=False, **options)
    assert sol.status == [status, status]
    with pytest.raises(error) as caught:
        root_find(g, z0, solver="newton", **options)
    assert torch.equal(caught.value.solution.z, sol.z)
    assert caught.value.status is status
    message = str(caught.value)
    assert status.sentence in message
    assert status.remedy in message
    assert f"residual {sol.residual[0].item():.3g}" in message
    assert "Of 2 samples 2 failed" in message


@pytest.mark.parametrize("solver", ["newton", "chord", "newton_krylov", Broyden(memory=2)], ids=repr)
def test_a_residual_of_zero_is_a_root_whatever_the_jacobian(solver):
    """Which is looked at for the sake of the last step."""
    sol = root_find(torch.relu, torch.ones(1, 1, dtype=D), solver=solver, termination=Termination(step_atol=1e-6))
    assert sol.residual.item() == 0


@pytest.mark.skipif(not is_supported(), reason="older versions of torch make no Jacobian in inference mode")
@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_inference_mode(solver):
    """Where nobody counts writes; the Jacobian is computed under a transform."""

    def search():
        return root_find(lambda z: 2 - 0.5 * z, torch.ones(2, 2, dtype=D), solver=solver, rtol=1e-9, atol=1e-9)

    expected = search()
    with torch.inference_mode():
        found = search()
        same = root_find(lambda z: -z, torch.ones(2, 2, dtype=D), solver=solver)
    assert torch.equal(found.z, expected.z)
    assert found.stats.n_evals.item() == expected.stats.n_evals.item()
    assert same.residual.max().item() < 1e-7


@pytest.mark.parametrize("solver", ["newton", "chord", "newton_krylov", "broyden"])
def test_a_function_that_ignores_its_argument_has_a_singular_jacobian(solver):
    value = torch.ones(3, 2, dtype=D)
    sol = root_find(lambda z: value, torch.zeros(3, 2, dtype=D), solver=solver, throw=False)
    assert sol.status == 3 * [RootStatus.SINGULAR]


@pytest.mark.parametrize("solver", ["newton", "broyden", "anderson", "newton_krylov"])
def test_a_step_that_a_line_search_refuses_is_no_small_one(solver):
    """Where the step alone decides, nobody converges by standing still."""
    z0 = torch.full((1, 1), 0.7, dtype=D)
    criterion = Termination(step_rtol=1e-6)
    sol = root_find(
        lambda z: z**2 + 1, z0, solver=solver, line_search="armijo", atol=math.inf, termination=criterion, throw=False
    )
    assert sol.status == [RootStatus.STAGNATED]
    solvable = root_find(
        lambda z: z**2 - 2, z0, solver="newton", line_search="armijo", atol=math.inf, termination=criterion
    )
    assert solvable.z.item() == pytest.approx(math.sqrt(2), rel=1e-12)


def test_the_solution_does_not_share_memory_with_the_start():
    z0 = torch.zeros(2, 2, dtype=D)
    sol = root_find(lambda z: 2 * z, z0)
    z0 += 1
    assert torch.equal(sol.z, torch.zeros(2, 2, dtype=D))


def test_divergence():
    sol = fixed_point(lambda z: -3 * z + 1, torch.zeros(1, 1, dtype=D), solver="fixed_point", throw=False)
    assert sol.status == [RootStatus.DIVERGED]
    assert sol.stats.n_steps.item() == math.ceil(math.log(1e6) / math.log(3))


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_a_growing_fixed_point_iteration_is_not_at_rounding(dtype):
    """What it is compared with, `h(z)`, grows as well: the residual at the start must not look small beside it."""
    rates = torch.tensor([[3.0], [1.3]], dtype=dtype)
    z0 = torch.ones(2, 1, dtype=dtype)
    sol = fixed_point(lambda z: rates * z + 1, z0, solver="fixed_point", throw=False)
    assert sol.status == [RootStatus.DIVERGED, RootStatus.STAGNATED]
    assert sol.stats.n_steps.tolist() == [math.ceil(math.log(1e6) / math.log(3)), 50]  # 1.3^50 is not yet 1e6


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_residual_that_stalls_at_rounding_says_so_and_gives_it(dtype):
    """The terms of `g` are of size 1e3, so that its residual is never known to 4 eps of its start."""
    eps = torch.finfo(dtype).eps
    z0 = torch.full((1, 1), 1.001, dtype=dtype)
    sol = root_find(lambda z: (1e3 * z) ** 2 - 1e6 * z - 0.1, z0, solver="newton", rtol=4 * eps, atol=0.0, throw=False)
    assert sol.status == [RootStatus.ROUNDING]
    assert 0 < sol.residual.item() < 1e6 * 10 * eps
    assert sol.stats.n_steps < 60
    with pytest.raises(StagnationError, match="stalls at rounding") as caught:
        sol.raise_if_failed()
    assert f"{sol.residual.item():.3g}" in str(caught.value)


def test_tolerances_are_relative_to_the_start_and_absolute():
    """Newton's residuals on z^2 - 2 from 1 are 1/4, 1/144, 6.0e-6 of the start, 4.5e-12 ..."""
    z0 = torch.ones(1, 1, dtype=D)

    def steps(scale=1.0, **options):
        return root_find(lambda z: scale * (z**2 - 2), z0, solver="newton", **options).stats.n_steps.item()

    assert steps(rtol=0.26, atol=0.0) == 1
    assert steps(rtol=0.24, atol=0.0) == 2
    assert steps(rtol=1e-3, atol=0.0) == 3
    assert steps(scale=1e6, rtol=1e-3, atol=0.0) == 3
    assert steps(rtol=1e-15, atol=1e-3) == 3
    assert steps(scale=1e6, rtol=1e-15, atol=1e-3) == 4
    per_sample = root_find(
        lambda z: z**2 - 2,
        torch.ones(2, 1, dtype=D),
        solver="newton",
        rtol=torch.tensor([0.26, 1e-3], dtype=D),
        atol=torch.zeros(2, dtype=D),
    )
    assert per_sample.stats.n_steps.tolist() == [1, 3]


def test_tolerance_of_a_fixed_point_is_relative_to_it():
    """z = 1000 + z / 2: after k halvings the residual is 1000 / 2^k, and h(z) nearly 2000."""
    sol = fixed_point(lambda z: 1000 + z / 2, torch.zeros(1, 1, dtype=D), solver="fixed_point", rtol=1e-3, atol=0.0)
    assert sol.stats.n_steps.item() == 9  # 1000 / 512 <= 2 < 1000 / 256


def test_criterion_for_steps():
    z0 = torch.ones(1, 1, dtype=D)
    loose = root_find(lambda z: z**3, z0, solver="newton", atol=1e-3)
    both = root_find(lambda z: z**3, z0, solver="newton", atol=1e-3, termination=Termination(step_atol=1e-6))
    alone = root_find(
        lambda z: z**3, z0, solver="newton", atol=math.inf, termination=Termination(step_atol=0.02), rtol=1.0
    )
    assert loose.z.item() > 0.05
    assert both.z.item() < 3e-6
    assert 0.02 < alone.z.item() < 0.05  # a step of Newton's method is a third of z, where it comes from


def test_patience_and_divergence_are_arguments():
    cycle = root_find(
        lambda z: z**3 - 2 * z + 2,
        torch.zeros(1, 1, dtype=D),
        solver="newton",
        termination=Termination(patience=7),
        throw=False,
    )
    assert cycle.stats.n_steps.item() == 8  # the first step is the best
    grown = fixed_point(
        lambda z: 3 * z,
        torch.ones(1, 1, dtype=D),
        solver="fixed_point",
        termination=Termination(divergence=10.0),
        throw=False,
    )
    assert grown.stats.n_steps.item() == 3


def test_states_of_any_structure():
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=D)

    def g(z):
        return {"x": z["x"] - z["y"].sum(dim=(1, 2)), "y": z["y"] ** 2 - a.unsqueeze(-1)}

    z0 = {"y": torch.ones(2, 2, 1, dtype=D), "x": torch.zeros(2, dtype=D)}
    for solver in ("newton", "broyden"):
        sol = root_find(g, z0, solver=solver, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sol.z["y"].squeeze(-1), a.sqrt(), rtol=1e-10, atol=0)
        torch.testing.assert_close(sol.z["x"], a.sqrt().sum(-1), rtol=1e-10, atol=0)
    image = torch.rand(2, 3, 4, 5, dtype=D)
    sol = root_find(lambda z: z - image.cos(), torch.zeros(2, 3, 4, 5, dtype=D))
    torch.testing.assert_close(sol.z, image.cos())
    scalars = root_find(lambda z: z**2 - torch.tensor([4.0, 9.0]), torch.ones(2), solver="newton")
    torch.testing.assert_close(scalars.z, torch.tensor([2.0, 3.0]), rtol=1e-3, atol=0)


def test_mixed_dtypes_and_half_precision():
    z0 = (torch.ones(2, 1, dtype=D), torch.ones(2, 1))
    sol = root_find(lambda z: (z[0] ** 2 - 2, z[1] ** 2 - z[0].float()), z0, solver="newton")
    assert [leaf.dtype for leaf in sol.z] == [D, torch.float32]
    assert sol.z[1][0].item() == pytest.approx(2**0.25, rel=1e-5)
    for dtype in (torch.float16, torch.bfloat16):
        seen = []

        def h(z, seen=seen):
            seen.append(z.dtype)
            return torch.cos(z)

        half = fixed_point(h, torch.ones(2, 1, dtype=dtype))
        assert half.z.dtype == dtype
        assert set(seen) == {dtype}
        assert half.z[0].item() == pytest.approx(0.739, abs=0.05)
        assert half.residual.dtype == torch.float32
        own = (torch.cos(half.z).float() - half.z.float()).square().mean(-1).sqrt()
        torch.testing.assert_close(half.residual, own, rtol=1e-6, atol=0)


def test_complex_roots():
    unit = torch.tensor([[1.0], [1j], [-1j]], dtype=torch.complex128)
    z0 = torch.tensor([[1.2 + 0.1j], [0.1 + 0.8j], [0.2 - 1.1j]], dtype=torch.complex128)
    for solver in ("newton", "broyden", Chord(every=2)):
        sol = root_find(lambda z: z**4 - 1, z0, solver=solver, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sol.z, unit, rtol=0, atol=1e-10)
        assert sol.residual.dtype == D
    rate = torch.tensor([[0.3 + 0.6j, 0.1], [0.2j, -0.4]], dtype=torch.complex128)
    shift = torch.tensor([[1.0 + 2j, -1j]], dtype=torch.complex128)
    exact = torch.linalg.solve(torch.eye(2) - rate, shift.T).T
    for solver in ("anderson", "broyden", "fixed_point"):
        sol = fixed_point(lambda z: z @ rate.T + shift, torch.zeros_like(shift), solver=solver, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sol.z, exact, rtol=0, atol=1e-10)


def test_compact_does_not_change_the_result_and_spares_evaluations():
    """Samples of contractions of which few are slow; `h` sees those that still run."""
    rate = torch.tensor([*[0.1] * 7, *[0.3] * 7, 0.5, 0.7], dtype=D)
    seen = []

    def h(z, rate):
        seen.append(len(z))
        return 1 + rate.unsqueeze(-1) * torch.sin(z)

    z0 = torch.ones(16, 2, dtype=D)
    for solver in ("fixed_point", "anderson", "broyden", "newton", Chord(every=2)):
        options = {"solver": solver, "rtol": 1e-10, "atol": 1e-10, "args": (PerSample(rate),)}
        whole = fixed_point(h, z0, **options)
        seen.clear()
        compact = fixed_point(h, z0, compact=True, **options)
        torch.testing.assert_close(compact.z, whole.z, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(compact.residual, whole.residual, rtol=1e-3, atol=1e-14)
        assert torch.equal(compact.stats.n_steps, whole.stats.n_steps)
        assert torch.equal(compact.status_code, whole.status_code)
        assert compact.stats.n_evals.item() == len(seen) == whole.stats.n_evals.item()
        if solver == "fixed_point":
            batches, n_steps = [16], whole.stats.n_steps
            for i in range(n_steps.max()):
                running = (n_steps > i).sum().item()
                batches.append(running if running <= batches[-1] // 2 else batches[-1])
            assert seen == batches
            assert batches[-1] < 16


def test_compact_with_bare_arguments_says_what_to_do():
    rate = torch.linspace(0.1, 0.9, 4, dtype=D).unsqueeze(-1)
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        fixed_point(
            lambda z, r: 1 + r * torch.sin(z), torch.zeros(4, 1, dtype=D), args=(rate,), compact=True, rtol=1e-9
        )
    assert any("PerSample" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("line_search", [None, "armijo"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-30), (torch.float32, 1e30), (D, 1e-200), (D, 1e200)])
def test_residuals_whose_squares_are_no_numbers(dtype, scale, line_search):
    """The equations z^2 = 2 in units in which their residual is far from 1."""
    z0 = torch.tensor([[1.0, 2.0]], dtype=dtype)
    options = {"solver": "newton", "line_search": line_search}
    plain = root_find(lambda z: z**2 - 2, z0, atol=0.0, **options)
    scaled = root_find(lambda z: scale * (z**2 - 2), z0, atol=0.0, **options)
    assert torch.equal(scaled.stats.n_steps, plain.stats.n_steps)
    torch.testing.assert_close(scaled.z, plain.z, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)
    torch.testing.assert_close(scaled.residual / scale, plain.residual, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("solver", "line_search"), SEARCHES, ids=repr)
def test_a_converged_sample_stands_still(solver, line_search):
    """Its function is evaluated where it ended, for as long as others run: the first sample starts near its root."""
    z0, a = problem(batch=3)
    z0[0] = a[0] + 1e-3
    seen = []

    def g(z):
        seen.append(z.clone())
        return roots(z, a)

    with torch.no_grad():
        sol = root_find(g, z0, solver=solver, line_search=line_search, rtol=1e-9, atol=1e-6)
    assert sol.stats.n_steps[0] < sol.stats.n_steps.max()
    assert torch.equal(seen[-1][0], sol.z[0])
    assert not torch.equal(seen[-1], seen[-2])


def test_empty_batch():
    sol = root_find(lambda z: z**2 - 2, torch.ones(0, 3))
    assert sol.z.shape == (0, 3)
    assert sol.status == []


def test_warm_start_is_looked_at_first():
    """Of a batch only the samples that are not solved take steps."""
    z0, a = problem()
    start = torch.where(torch.arange(6).unsqueeze(-1) % 2 == 0, a, z0)
    sol = root_find(roots, start, args=(a,), solver="newton")
    assert (sol.stats.n_steps == 0).tolist() == [True, False] * 3
    assert torch.equal(sol.z[::2], a[::2])


@pytest.mark.gpu
@pytest.mark.parametrize("line_search", [None, "armijo"])
@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_on_cuda_as_on_the_cpu(solver, line_search):
    line_search = line_search if solver.searches else None
    z0, a = problem(batch=64, size=8)
    options = {"solver": solver, "line_search": line_search, "rtol": 1e-10, "atol": 1e-10, "throw": False}
    expected = root_find(roots, z0, args=(a,), **options)
    found = root_find(roots, z0.cuda(), args=(a.cuda(),), **options)
    assert found.z.is_cuda
    assert found.residual.is_cuda
    torch.testing.assert_close(found.z.cpu(), expected.z, rtol=0, atol=1e-9)
    assert found.status == expected.status
    compact = root_find(roots, z0.cuda(), args=(PerSample(a.cuda()),), compact=True, **options)
    torch.testing.assert_close(compact.z, found.z, rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_a_step_on_cuda_waits_once(recwarn):
    """For the one flag that says whether anybody goes on."""
    z0, a = (tensor.cuda() for tensor in problem(batch=64, size=8))
    for solver in (Anderson(), Broyden(jacobian=-1.0), Newton()):
        root_find(roots, z0, args=(a,), solver=solver, rtol=1e-10, atol=1e-10)
        recwarn.clear()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with torch.no_grad():
                sol = root_find(roots, z0, args=(a,), solver=solver, rtol=1e-10, atol=1e-10, throw=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in recwarn.list if "synchronizing" in str(w.message)]
        n_steps = sol.stats.n_steps.max().item()
        assert n_steps > 2
        assert len(waits) <= n_steps + 4  # the start is checked as well


@pytest.mark.parametrize("solver", ["broyden", "newton", "newton_krylov"])
def test_a_system_without_a_batch_dimension_is_noticed(solver):
    """Two unknowns of one system, taken for two problems, the first of which is solved where the second starts."""

    def g(z):
        return torch.stack([z[0] - z[1], z[1] ** 2 - 2])

    sol = root_find(g, torch.ones(2, dtype=D), solver=solver, throw=False)
    assert sol.status[0] is RootStatus.COUPLED
    with pytest.raises(CoupledSamplesError, match=r"z0\.unsqueeze"):
        root_find(g, torch.ones(2, dtype=D), solver=solver)
    together = root_find(lambda z: g(z.T).T, torch.ones(1, 2, dtype=D), solver=solver)
    torch.testing.assert_close(together.z, torch.full((1, 2), math.sqrt(2), dtype=D), rtol=1e-7, atol=0)


def test_a_function_that_changes_is_noticed():
    """As with dropout: the first sample has converged long since when another function is handed in."""
    rate, calls = torch.tensor([[0.1], [0.9]], dtype=D), []

    def h(z, moved):
        calls.append(1)
        return rate * z + 1 + (moved if len(calls) > 20 else 0.0)

    z0 = torch.ones(2, 1, dtype=D)
    sol = fixed_point(h, z0, args=(1e-3,), solver="fixed_point", rtol=1e-6, atol=0.0, throw=False)
    assert sol.status == [RootStatus.COUPLED, RootStatus.CONVERGED]
    calls.clear()
    with pytest.raises(CoupledSamplesError, match=r"Sample 0.*batch of one"):
        fixed_point(h, z0, args=(1e-3,), solver="fixed_point", rtol=1e-6, atol=0.0)
    calls.clear()
    fixed_point(h, z0, args=(1e-6,), solver="fixed_point", rtol=1e-6, atol=0.0)  # as rounding may


def test_a_start_far_away_does_not_pass_for_converged():
    """By default the last step has to be small as well, beside a residual that is small beside that at the start."""
    for dtype, start in ((D, 50.0), (torch.float32, 20.0)):
        sol = root_find(torch.expm1, torch.full((1, 1), start, dtype=dtype), solver="newton")
        assert abs(sol.z.item()) < 1e-3
        loose = root_find(torch.expm1, torch.full((1, 1), start, dtype=dtype), solver="newton", rtol=1e-3, atol=0.0)
        assert loose.z.item() > 5
