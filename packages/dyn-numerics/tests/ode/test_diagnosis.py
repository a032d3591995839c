"""What a failure is blamed on."""

import pytest
import torch

from dyn_numerics import DiscontinuityError, PIDController, Status, StepUnderflowError, StiffnessError, odeint

D = torch.float64
MODES = ["joint", "per_sample"]


def status(f, x0, span, stepping, **options):
    sol = odeint(f, torch.tensor([x0], dtype=D), span, stepping=stepping, throw=False, **options)
    return sol.status if stepping == "joint" else sol.status[0]


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("solver", ["dopri5", "tsit5", "vern7", "dopri8"])
def test_stiffness_with_a_least_step(stepping, solver):
    """x' = -1e6 (x - cos t): after the transient the steps stay at 3.3e-6 whatever the tolerance."""
    found = status(
        lambda t, x: -1e6 * (x - torch.cos(t)),
        1.0,
        [0.0, 1.0],
        stepping,
        solver=solver,
        controller=PIDController(min_step=1e-5, first_step=1e-5),
    )
    assert found is Status.STIFFNESS_SUSPECTED


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("solver", ["dopri5", "tsit5", "vern7", "dopri8"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_stiffness_with_too_few_steps(stepping, solver, rtol):
    def field(t, x):
        return -1e5 * (x - torch.cos(t))

    assert status(field, 1.0, [0.0, 1.0], stepping, solver=solver, rtol=rtol, max_steps=300) is (
        Status.STIFFNESS_SUSPECTED
    )


@pytest.mark.parametrize("stepping", MODES)
def test_a_least_step_that_is_too_long_for_a_transient(stepping):
    """Or for a singularity: neither is stiff there, and errors as large as the state do not tell a jump."""
    transient = status(lambda t, x: -1e3 * x, 1.0, [0.0, 1.0], stepping, controller=PIDController(min_step=0.1))
    assert transient is Status.STEP_UNDERFLOW
    singular = status(lambda t, x: x * x, 2.0, [0.0, 1.0], stepping, controller=PIDController(min_step=1e-3))
    assert singular is Status.STEP_UNDERFLOW
    exponential = status(lambda t, x: torch.exp(x), 1.0, [0.0, 4.0], stepping)
    assert exponential in (Status.STEP_UNDERFLOW, Status.NON_FINITE)  # rounding decides whether it overflows first


@pytest.mark.parametrize("stepping", MODES)
def test_accuracy_is_not_stiffness(stepping):
    found = status(lambda t, x: 300 * torch.cos(300 * t) + 0 * x, 0.0, [0.0, 100.0], stepping, max_steps=200)
    assert found is Status.MAX_STEPS


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("solver", ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
def test_a_singularity_is_neither(stepping, solver, rtol):
    assert status(lambda t, x: x**2, 1.0, [0.0, 2.0], stepping, solver=solver, rtol=rtol) is Status.STEP_UNDERFLOW


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("solver", ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"])
def test_a_jump_too_high_for_the_tolerance(stepping, solver):
    found = status(
        lambda t, x: torch.where(t > 0.3, 1e15, 0.0) + 0 * x, 1.0, [0.0, 1.0], stepping, solver=solver, rtol=1e-12
    )
    assert found is Status.DISCONTINUITY_SUSPECTED


@pytest.mark.parametrize("stepping", MODES)
def test_a_jump_with_a_least_step(stepping):
    found = status(
        lambda t, x: torch.where(t > 0.3, 10.0, 0.0) + 0 * x,
        1.0,
        [0.0, 1.0],
        stepping,
        solver="dopri5",
        rtol=1e-6,
        controller=PIDController(min_step=1e-3),
    )
    assert found is Status.DISCONTINUITY_SUSPECTED


@pytest.mark.parametrize("stepping", MODES)
def test_too_few_steps_for_the_accuracy_of_a_field_that_is_a_little_stiff(stepping):
    """Stability would allow steps some twenty times as long."""

    def field(t, x):
        return -100 * (x - torch.cos(5 * t))

    found = status(field, 1.0, [0.0, 100.0], stepping, rtol=1e-9, atol=1e-12, max_steps=41)
    assert found is Status.MAX_STEPS


@pytest.mark.parametrize("stepping", MODES)
def test_too_few_steps_to_get_across_a_jump(stepping):
    """Further ones may, so there is no cause to name."""
    found = status(
        lambda t, x: torch.where(t > 0.3, 1e6, 0.0) + 0 * x, 1.0, [0.0, 1.0], stepping, rtol=1e-9, max_steps=8
    )
    assert found is Status.MAX_STEPS


@pytest.mark.parametrize("stepping", MODES)
def test_a_bump_that_the_diagnosis_does_not_see(stepping):
    """Of the steps that it takes none is rejected, so that nothing is known; their errors are rounding alone."""
    control = PIDController(min_step=0.4, first_step=0.4375)

    def field(t, x):
        return 1 + 1e3 * torch.exp(-(((t - 0.4375) / 5e-3) ** 2)) + 0 * x

    found = status(field, 1.0, [0.0, 1.0], stepping, solver="bosh3", rtol=1e-9, atol=1e-15, controller=control)
    assert found is Status.STEP_UNDERFLOW


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "reversed"])
def test_the_diagnosis_stays_within_the_span(stepping, sign, counted):
    """Where four quarters of what is left round to more."""
    span = [-0.05822491510128258 * sign, 0.8970165815131764 * sign]
    f = counted(lambda t, x: -x)
    control = PIDController(first_step=0.45 * abs(span[1] - span[0]))
    assert status(f, 1.0, span, stepping, controller=control, max_steps=1) is Status.MAX_STEPS
    assert max(sign * t.item() for t in f.times) == sign * span[1]


def test_a_step_function_is_solved_where_the_tolerance_allows(counted):
    f = counted(lambda t, x: torch.where(t > 0.3, 10.0, 0.0) + 0 * x)
    for stepping in MODES:
        sol = odeint(f, torch.ones(1, 1, dtype=D), [0.0, 1.0], rtol=1e-6, atol=1e-6, stepping=stepping)
        assert sol.x[-1].item() == pytest.approx(8.0, abs=1e-4)
    assert f.calls < 2000


def test_the_errors():
    x0 = torch.ones(1, dtype=D)
    with pytest.raises(StiffnessError, match=r"probably stiff\. .* Take a method for stiff problems, solver='rodas5p'"):
        odeint(lambda t, x: -1e5 * (x - torch.cos(t)), x0, [0.0, 1.0], max_steps=300)
    with pytest.raises(DiscontinuityError, match="f probably jumps there"):
        odeint(lambda t, x: torch.where(t > 0.3, 1e15, 0.0) + 0 * x, x0, [0.0, 1.0], rtol=1e-12)
    assert issubclass(DiscontinuityError, StepUnderflowError)


def test_only_the_sample_concerned_is_blamed():
    rate = torch.tensor([[1.0], [1e5], [1.0]], dtype=D)
    sol = odeint(
        lambda t, x: -rate * (x - torch.cos(t)),
        torch.ones(3, 1, dtype=D),
        [0.0, 1.0],
        stepping="per_sample",
        max_steps=300,
        throw=False,
    )
    assert [s.name for s in sol.status] == ["SUCCESS", "STIFFNESS_SUSPECTED", "SUCCESS"]


@pytest.mark.parametrize("stepping", MODES)
def test_a_singularity_is_no_jump_to_an_implicit_method(stepping):
    """Its longer step has no solution, and so no error that could be called small."""
    found = status(lambda t, x: x * x, 2.0, [0.0, 1.0], stepping, solver="kvaerno5", rtol=1e-5, atol=1e-7)
    assert found in (Status.STEP_UNDERFLOW, Status.NEWTON_DIVERGED)
