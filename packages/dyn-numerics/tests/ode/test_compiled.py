"""`torch.compile(fullgraph=True)`: the whole solve is one program, which computes what the eager one does.

Inductor writes code for some programs of each kind; the others go as far as the graphs that it is handed.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from dyn_numerics import Callbacks, FixedStep, PIDController, Save, SolverError, Status, StopAt, odeint
from dyn_numerics.loop import is_supported
from dyn_numerics.ode.steppers.by_name import stepper

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve"),
    pytest.mark.timeout(300),
]

D = torch.float64


@pytest.fixture(autouse=True)
def fresh_cache():
    torch._dynamo.reset()


def van_der_pol(t, x):
    a, b = x[..., 0], x[..., 1]
    return torch.stack([b, 2.0 * (1 - a * a) * b - a], -1)


def lotka_volterra(t, x):
    a, b = x[..., 0], x[..., 1]
    return torch.stack([1.5 * a - a * b, a * b - 3 * b], -1)


def forced(t, x):
    return torch.cos(3 * t) - x * x.abs()


@pytest.fixture
def x0():
    return 1 + 0.5 * torch.rand(5, 2, dtype=D, generator=torch.Generator().manual_seed(0))


def compiled(f, backend="aot_eager", **options):
    return torch.compile(lambda x0, t: odeint(f, x0, t, **options), fullgraph=True, backend=backend)


def check_alike(found, expected, atol):
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=atol)
    for name, count in expected.stats.counts.items():
        assert torch.equal(getattr(found.stats, name), count), name
    assert found.status == expected.status
    torch.testing.assert_close(found.t_reached, expected.t_reached, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.dt_last, expected.dt_last, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("problem", "stepping", "backend"),
    [
        pytest.param(van_der_pol, "joint", "inductor", marks=pytest.mark.slow),
        (van_der_pol, "per_sample", "aot_eager"),
        (lotka_volterra, "joint", "aot_eager"),
        (lotka_volterra, "per_sample", "aot_eager"),
        (forced, "joint", "aot_eager"),
        (forced, "per_sample", "inductor"),
    ],
)
def test_adaptive_steps(problem, stepping, backend, x0):
    options = {"solver": "dopri5", "rtol": 1e-7, "atol": 1e-7, "stepping": stepping}
    t = torch.linspace(0, 3, 31, dtype=D)
    with torch.no_grad():
        check_alike(compiled(problem, backend, **options)(x0, t), odeint(problem, x0, t, **options), 1e-10)


@pytest.mark.parametrize("solver", ["vern7", "dopri8"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_methods_of_high_order(solver, stepping, x0):
    """Their interpolants have stages of their own, which a loop that cannot branch evaluates at every step."""
    options = {"solver": solver, "rtol": 1e-10, "atol": 1e-10, "stepping": stepping}
    t = torch.linspace(0, 3, 31, dtype=D)
    with torch.no_grad():
        found, expected = compiled(van_der_pol, **options)(x0, t), odeint(van_der_pol, x0, t, **options)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-11)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)
    assert torch.equal(found.stats.n_accepted, expected.stats.n_accepted)
    method = stepper(solver)
    assert found.stats.n_evals == 2 + found.stats.n_steps.max() * (method.tableau.stages + method.dense_evals)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("solver", ["rk4", "tsit5"])
def test_stops_where_the_field_jumps(solver, stepping, x0):
    controller = StopAt([0.7, 0.35], FixedStep() if solver == "rk4" else None, jumps=True)
    options = {"solver": solver, "rtol": 1e-9, "atol": 1e-9, "stepping": stepping, "controller": controller}

    def f(t, x):
        return torch.where(t < 0.7, 1.0, -2.0) * torch.sin(t + x)

    t = torch.tensor([0.1, 0.7, 2.0], dtype=D)
    with torch.no_grad():
        found, expected = compiled(f, **options)(x0, t), odeint(f, x0, t, **options)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)
    assert torch.equal(found.stats.n_rejected, expected.stats.n_rejected)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("solver", ["rk4", "tsit5", "bosh3"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_fixed_steps(stepping, solver, dtype, x0):
    options = {"solver": solver, "stepping": stepping, "step_size": 0.04}
    t = torch.linspace(0, 1, 6, dtype=D)
    tolerance = 1e-12 if dtype == D else 1e-5
    with torch.no_grad():
        found = compiled(van_der_pol, **options)(x0.to(dtype), t)
    expected = odeint(van_der_pol, x0.to(dtype), t, **options)
    torch.testing.assert_close(found.x, expected.x, rtol=tolerance, atol=tolerance)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)


def test_steps_on_t_span(x0):
    t = torch.linspace(0, 1, 21, dtype=D)
    with torch.no_grad():
        for stepping in ("joint", "per_sample"):
            options = {"solver": "heun", "stepping": stepping}
            check_alike(compiled(forced, "inductor", **options)(x0, t), odeint(forced, x0, t, **options), 1e-12)


def test_every_samples_own_times(x0):
    t = torch.stack([torch.linspace(0, end, 6, dtype=D) for end in (1.0, -0.2, 2.0, 0.0, 0.5)], 1)
    options = {"stepping": "per_sample", "rtol": 1e-6, "atol": 1e-6}
    with torch.no_grad():
        check_alike(compiled(forced, **options)(x0, t), odeint(forced, x0, t, **options), 1e-10)


def test_pi_control_and_limits(x0):
    t = torch.linspace(0, 2, 3, dtype=D)
    controller = PIDController(p=0.4, i=0.3, d=0.01, max_step=0.2, min_step=1e-4)
    options = {"controller": controller, "rtol": 1e-6, "atol": 1e-6}
    with torch.no_grad():
        for stepping in ("joint", "per_sample"):
            expected = odeint(forced, x0, t, stepping=stepping, **options)
            found = compiled(forced, stepping=stepping, **options)(x0, t)
            check_alike(found, expected, 1e-10)


def test_pytrees_modules_and_arguments():
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def field(t, x, scale):
        return {"a": scale * net(x["a"]), "b": -x["b"]}

    x0 = {"a": torch.ones(3, 2, dtype=D), "b": torch.ones(3, dtype=torch.float32)}
    t = torch.linspace(0, 1, 4, dtype=D)
    scale, options = torch.tensor(0.7, dtype=D), {"solver": "bosh3", "rtol": 1e-6, "atol": 1e-6}
    solve = torch.compile(lambda x0, t, s: odeint(field, x0, t, args=(s,), **options), fullgraph=True)
    with torch.no_grad():
        found, expected = solve(x0, t, scale), odeint(field, x0, t, args=(scale,), **options)
    torch.testing.assert_close(found.x["a"], expected.x["a"], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.x["b"], expected.x["b"], rtol=0, atol=1e-6)
    assert found.x["b"].dtype == torch.float32


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_the_field_is_not_evaluated_outside_the_span(stepping, reverse, x0):
    """Where it has no value there, every attempt is finite all the same."""
    span = torch.tensor([0.5, 2.0], dtype=D)

    def field(t, x):
        outside = (t < span[0]) | (t > span[1])
        return torch.where(outside, torch.nan, torch.cos(30 * t) * 30 - x)

    t = span.flip(0) if reverse else span
    options = {"rtol": 1e-6, "atol": 1e-6, "stepping": stepping}
    with torch.no_grad():
        found, eager = compiled(field, **options)(x0, t), odeint(field, x0, t, **options)
    check_alike(found, eager, 1e-10)
    assert found.status_code.max() == 0


def test_one_host_read_for_every_attempt(x0, host_reads):
    """The program reads whether the loop goes on, and nothing else."""
    program, besides = compiled(van_der_pol, "inductor", rtol=1e-6), []
    with torch.no_grad():
        program(x0, torch.tensor([0.0, 0.5, 1.0], dtype=D))
        for end in (1.0, 6.0):
            t = torch.tensor([0.0, 0.5, end], dtype=D)
            host_reads.clear()
            solution = program(x0, t)
            count = len(host_reads)
            besides.append(count - solution.stats.n_steps.item())
            assert count > 5
    assert besides[0] == besides[1]
    assert 1 <= besides[0] <= 4  # around the loop of attempts and that which looks for causes


def test_a_failed_sample_has_a_status_and_its_neighbours_their_values():
    def field(t, x):
        return torch.where((x > 2.5) & (x < 50), torch.nan, x)

    x0 = torch.tensor([[1.0], [0.1], [3.0], [1.9]], dtype=D)
    t = torch.linspace(0, 0.5, 5, dtype=D)
    with torch.no_grad():
        solve = compiled(field, "inductor", solver="bosh3", stepping="per_sample")
        found, expected = solve(x0, t), odeint(field, x0, t, solver="bosh3", stepping="per_sample", throw=False)
    assert found.status == expected.status
    assert [s.name for s in found.status] == ["SUCCESS", "SUCCESS", "NON_FINITE", "NON_FINITE"]
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-10, equal_nan=True)
    with pytest.raises(SolverError, match="Sample 2 stopped"):
        found.raise_if_failed()


def stiff(t, x):
    return -1e5 * (x - torch.cos(t))


def jumping(t, x):
    return torch.where(t > 0.3, 1e15, 0.0) + 0 * x


def singular(t, x):
    return x * x


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(
    ("field", "rtol", "max_steps", "cause"),
    [
        (stiff, 1e-6, 300, Status.STIFFNESS_SUSPECTED),
        (jumping, 1e-12, 1000, Status.DISCONTINUITY_SUSPECTED),
        (singular, 1e-3, 1000, Status.STEP_UNDERFLOW),
    ],
    ids=["stiff", "jumping", "singular"],
)
def test_the_cause_of_a_failure_is_looked_for(field, rtol, max_steps, cause, stepping):
    """In the same program, by the three steps that an eager solve takes for it, and only after a failure."""
    options = {"stepping": stepping, "solver": "dopri5", "rtol": rtol, "max_steps": max_steps}
    solve = compiled(field, **options)
    x0 = torch.ones(1, 1, dtype=D)
    with torch.no_grad():
        for end, code, evals in ((2.0, cause.code, 18), (1e-4, 0, 0)):
            t = torch.tensor([0.0, end], dtype=D)
            for found in (solve(x0, t), odeint(field, x0, t, throw=False, **options)):
                assert found.status_code.item() == code
                assert found.stats.n_evals.item() - found.stats.n_active_evals.item() == evals


def test_only_the_sample_concerned_is_blamed():
    rate = torch.tensor([[1.0], [1e5], [1.0]], dtype=D)

    def field(t, x):
        return -rate * (x - torch.cos(t))

    with torch.no_grad():
        solve = compiled(field, stepping="per_sample", max_steps=300)
        found = solve(torch.ones(3, 1, dtype=D), torch.tensor([0.0, 1.0], dtype=D))
    assert [s.name for s in found.status] == ["SUCCESS", "STIFFNESS_SUSPECTED", "SUCCESS"]


def test_max_steps(x0):
    t = torch.tensor([0.0, 100.0], dtype=D)
    with torch.no_grad():
        found = compiled(van_der_pol, max_steps=10)(x0, t)
    assert found.status is Status.MAX_STEPS
    assert found.stats.n_steps == 10
    assert found.x[-1].isnan().all()


def test_no_recompilation_for_other_times_and_tolerances(x0):
    counter = CompileCounter()
    solve = torch.compile(lambda x0, t, tol: odeint(forced, x0, t, rtol=tol, atol=tol), fullgraph=True, backend=counter)
    with torch.no_grad():
        for i in range(20):
            t = torch.tensor([0.1 * i, 1.0 + 0.1 * i], dtype=D)
            tol = torch.tensor(10.0 ** -(3 + i % 5), dtype=D)
            torch.testing.assert_close(solve(x0, t, tol).x, odeint(forced, x0, t, rtol=tol, atol=tol).x)
    assert counter.frame_count == 1


def test_a_number_that_a_field_captures_compiles_again(x0):
    t = torch.tensor([0.0, 1.0], dtype=D)
    for rate in (1.5, 0.25, 0.75):
        with torch.no_grad():
            found = compiled(lambda t, x, rate=rate: -rate * x, solver="bosh3", rtol=1e-8, atol=1e-8)(x0, t)
        torch.testing.assert_close(found.x[-1], x0 * math.exp(-rate), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"save": "steps"},
        {"save": "dense"},
        {"save": Save(fn=lambda t, x: x.sum())},
        {"progress": True},
        {"callbacks": Callbacks(on_step=print)},
        {"compact": True, "stepping": "per_sample"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_runs_in_python_is_refused(options, x0):
    name = next(iter(options))
    with pytest.raises(Exception, match=f"{name}: got .* inside torch.compile, where a solve is one program"):
        compiled(forced, backend="eager", **options)(x0, torch.tensor([0.0, 1.0], dtype=D))


def test_going_on_is_refused(x0):
    t = torch.tensor([0.0, 1.0], dtype=D)
    with pytest.raises(Exception, match=r"resume: got a solution inside of torch.compile"):
        torch.compile(lambda x0, t: odeint(forced, x0, t).resume(t + 1).x, fullgraph=True, backend="eager")(x0, t)
    with torch.no_grad(), pytest.raises(ValueError, match="resume: got a solution that was compiled"):
        compiled(forced, backend="eager")(x0, t).resume(t + 1)


def test_a_gradient_is_refused(x0):
    with pytest.raises(Exception, match=r"has no gradient inside torch\.compile; use dyn_sensitivity\.odeint"):
        compiled(forced, backend="eager")(x0.requires_grad_(), torch.tensor([0.0, 1.0], dtype=D))


def test_a_branch_on_data_is_an_error(x0):
    def field(t, x):
        return -x if x.sum() > 0 else x

    with pytest.raises(Exception, match=r"(?s)[Dd]ata-dependent|branching"):
        compiled(field, backend="eager")(x0, torch.tensor([0.0, 1.0], dtype=D))


@pytest.mark.gpu
def test_on_a_device(x0):
    t = torch.linspace(0, 3, 31, dtype=D, device="cuda")
    for stepping in ("joint", "per_sample"):
        options = {"stepping": stepping, "rtol": 1e-7, "atol": 1e-7}
        with torch.no_grad():
            found = compiled(van_der_pol, "inductor", **options)(x0.cuda(), t)
        torch.testing.assert_close(found.x, odeint(van_der_pol, x0.cuda(), t, **options).x, rtol=0, atol=1e-9)
