"""Where and how often the field is evaluated."""

import pytest
import torch

from dyn_numerics import Bosh3, Dopri5, FixedStep, Heun, RungeKutta2, RungeKutta4, Save, Tsit5, odeint

FIXED = ["euler", "midpoint", "heun", "ralston", "rk4"]
ADAPTIVE = ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
MODES = {
    **{f"{name} on t_span": {"solver": name} for name in FIXED},
    **{f"{name} adaptive": {"solver": name} for name in ADAPTIVE},
    "rk4 step_size": {"solver": "rk4", "step_size": 0.3},
    "heun step_size that divides": {"solver": "heun", "step_size": 0.25},
    "dopri5 step_size": {"solver": "dopri5", "step_size": 0.3},
    "dopri5 on t_span": {"solver": "dopri5", "controller": FixedStep()},
    "trainable tsit5 adaptive": {"solver": Tsit5(trainable=True)},
    "trainable bosh3 adaptive": {"solver": Bosh3(trainable=True)},
    "trainable dopri5 on t_span": {"solver": Dopri5(trainable=True), "controller": FixedStep()},
    "trainable heun step_size": {"solver": Heun(trainable=True), "step_size": 0.3},
    "rk2": {"solver": RungeKutta2(0.6)},
}
SPANS = {
    "forward": (0.0, 3.0),
    "reversed": (3.0, 0.0),
    "ending at 0": (-2.0, 0.0),
    "reversed, ending at 0": (2.0, 0.0),
    "far from 0": (1000.1, 1001.3),
    "decimal": (0.1, 0.7),
}


def jumpy(t, x):
    """Two scales and a kink, so that some attempts are rejected."""
    return x * torch.cos(t) + torch.sin(40 * t) * torch.where(t > 1.3, 5.0, 0.0).to(x)


@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_n_evals_equals_a_counter_inside_f(mode, save, counted):
    f = counted(jumpy)
    sol = odeint(f, torch.ones(2).double(), [0.0, 0.4, 0.5, 1.7, 2.0], save=save, **mode)
    stats = sol.stats
    assert stats.n_evals.item() == f.calls > 0
    assert stats.n_active_evals.item() == f.calls
    assert stats.n_steps.item() == stats.n_accepted.item() + stats.n_rejected.item()


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_counts_of_an_adaptive_solve(solver, counted):
    """Two evaluations choose the first step; then the first stage of an attempt is known, rejected or not."""
    f = counted(jumpy)
    stats = odeint(f, torch.ones(2).double(), [0.0, 3.0], solver=solver).stats
    stages = {"bosh3": 3, "dopri5": 6, "tsit5": 6, "vern7": 9, "dopri8": 11}[solver]
    completed = stats.n_accepted.item() if solver in ("vern7", "dopri8") else 0  # the field at the new state
    assert stats.n_rejected > 0
    assert f.calls == 2 + stages * stats.n_steps.item() + completed


@pytest.mark.parametrize(
    ("solver", "per_step", "start"), [("euler", 1, 0), ("heun", 2, 0), ("rk4", 4, 0), ("bosh3", 3, 1), ("dopri5", 6, 1)]
)
def test_counts_of_fixed_steps(solver, per_step, start, counted):
    f = counted(jumpy)
    odeint(f, torch.ones(2).double(), torch.linspace(0, 1, 6).double(), solver=solver, controller=FixedStep())
    assert f.calls == start + per_step * 5


@pytest.mark.parametrize(
    "solver",
    ["bosh3", "dopri5", "tsit5", *(kind(trainable=True) for kind in (Bosh3, Dopri5, Tsit5))],
    ids=lambda s: str(s).split("(")[0],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_the_number_of_outputs_changes_nothing(solver, reverse, counted):
    def times_of_evaluations(outputs):
        f = counted(jumpy)
        t_span = torch.linspace(0, 3, outputs, dtype=torch.float64)
        sol = odeint(f, torch.ones(2).double(), t_span.flip(0) if reverse else t_span, solver=solver)
        return f.times, sol.stats.n_evals.item(), sol.x[-1]

    few, many = times_of_evaluations(2), times_of_evaluations(200)
    assert few[1] == many[1]
    assert few[0] == many[0]
    assert torch.equal(few[2], many[2])


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize(("solver", "extra"), [("vern7", 5), ("dopri8", 3)])
def test_methods_of_high_order_pay_for_steps_that_hold_an_output(solver, extra, stepping, counted):
    def solve(t_span):
        f = counted(jumpy)
        x0 = torch.ones(1, 1).double()
        sol = odeint(f, x0, torch.tensor(t_span).double(), solver=solver, stepping=stepping, save=Save(internals=True))
        assert sol.stats.n_evals.item() == f.calls
        assert sol.stats.n_active_evals.item() == f.calls or stepping == "per_sample"
        return sol

    few, many = solve([0.0, 3.0]), solve([0.0, 0.001, 0.002, 1.5, 2.9, 3.0])
    ends = few.internals.dt.flatten().cumsum(0)
    steps = torch.searchsorted(ends, torch.tensor([0.001, 0.002, 1.5, 2.9], dtype=torch.float64)).unique()
    assert torch.equal(few.x[-1], many.x[-1])
    assert many.stats.n_evals.item() - few.stats.n_evals.item() == extra * len(steps)
    assert len(steps) < few.stats.n_accepted.item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS.keys())
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_never_outside_the_span(mode, span, dtype, counted):
    f = counted(lambda t, x: torch.cos(40 * t) + 0 * x)
    outputs = torch.linspace(*span, 4, dtype=torch.float64).tolist()
    odeint(f, torch.ones(1, dtype=dtype), [span[0], *outputs[1:-1], span[1]], rtol=1e-2, **mode)
    low, high = sorted(torch.tensor(span, dtype=torch.float64).to(dtype).tolist())
    assert all(t.dtype == dtype and t.shape == () for t in f.times)
    assert low <= min(f.times).item()
    assert max(f.times).item() <= high


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS.keys())
@pytest.mark.parametrize("solver", ["rk4", *ADAPTIVE])
@pytest.mark.parametrize("step_size", [None, 0.07])
def test_lands_exactly_on_the_end(solver, span, step_size, counted):
    f = counted(lambda t, x: torch.cos(t) + 0 * x)
    sol = odeint(f, torch.ones(1).double(), span, solver=solver, step_size=step_size, save="steps")
    assert (sol.t[0].item(), sol.t[-1].item()) == span
    assert sol.t_reached.item() == span[1]
    assert f.times[-1].item() == span[1]  # every one of these methods has a stage at the end
    forward = span[1] > span[0]
    assert all((b > a) == forward for a, b in zip(sol.t[:-1], sol.t[1:], strict=True))


def test_f_receives_time_as_documented(counted):
    f = counted(lambda t, x: (x[0] * 1j, -x[1]))
    odeint(f, (torch.ones(2, dtype=torch.complex64), torch.ones(1, dtype=torch.float16)), [0.0, 1.0])
    assert all(t.shape == () and t.dtype == torch.float32 and t.device.type == "cpu" for t in f.times)


def test_rejected_attempts_are_counted(counted):
    f = counted(lambda t, x: torch.cos(50 * t) * 50 + 0 * x)
    from_far_too_long = RungeKutta4().order * 10.0
    sol = odeint(f, torch.zeros(1).double(), [0.0, from_far_too_long], solver="tsit5", max_steps=30, throw=False)
    assert sol.stats.n_steps == 30
    assert sol.stats.n_rejected > 0
    assert sol.stats.n_evals.item() == f.calls == 2 + 6 * 30 + 3 * 6  # and three steps that look for the cause
