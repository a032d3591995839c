"""Every promise of a stepper can be broken: a method with one fault breaks those that speak of it, and no other."""

import unittest
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dyn_numerics import Step, Stepper, Verlet, Yoshida4
from dyn_numerics.contracts import ForcedRadialOscillator, InterpolantContract, StepperContract
from dyn_numerics.loop import is_supported
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.times import state_time


class Known(NamedTuple):
    """What a step knows of its start, and its interpolant of its end."""

    slope: Tensor


class Trapezoid(Stepper):
    """Heun's method without a fault, as somebody would write it who knows no tables. Its faults override a part each."""

    order = 2
    error_order = 1

    def init(self, f, t, x, slope):
        return Known(f(t, x) if slope is None else slope)

    def step(self, f, t0, t1, x, carry):
        dt = over_state(t1 - t0, x)
        first = carry.slope
        second = f(self.end(t0, t1, x), x + dt * first)
        new = self.advance(x, dt, first, second)
        return Step(new, self.estimate(dt, first, second), self.next_carry(f, t1, new), carry, (first, dt))

    def end(self, t0, t1, x):
        return state_time(t1, x)

    def advance(self, x, dt, first, second):
        return x + 0.5 * dt * (first + second)

    def estimate(self, dt, first, second):
        return 0.5 * dt * (second - first)

    def next_carry(self, f, t1, new):
        return Known(f(state_time(t1, new), new))

    def complete(self, f, t1, step):
        return step

    def interpolant(self, f, t0, t1, x0, step):
        first, dt = step.stages
        return cubic_hermite(x0, step.x, first, step.carry.slope, dt)


class Invertible(Trapezoid):
    def inverse_step(self, f, t0, t1, x, carry):
        # x0 + dt / 2 (f(t0, x0) + f(t1, x0 + dt f(t0, x0))) = x, by fixed-point iteration
        dt, x0 = over_state(t1 - t0, x), x
        for _ in range(200):
            first = f(state_time(t0, x0), x0)
            x0 = x - 0.5 * dt * (first + f(state_time(t1, x0), x0 + dt * first))
        return x0, Known(first)


class WrongWeights(Trapezoid):
    def advance(self, x, dt, first, second):
        return x + dt * (0.4 * first + 0.6 * second)


class IgnoresTime(Trapezoid):
    """First order for fields that depend on time."""

    def end(self, t0, t1, x):
        return state_time(t0, x)


class ForwardOnly(Trapezoid):
    def end(self, t0, t1, x):
        return state_time(t1 + (abs(t1 - t0) - (t1 - t0)), x)


class LooksAhead(Trapezoid):
    def step(self, f, t0, t1, x, carry):
        f(state_time(t1 + 0.1 * (t1 - t0), x), x)
        return super().step(f, t0, t1, x, carry)


class RoundsBeyondTheEnd(Trapezoid):
    def end(self, t0, t1, x):
        return state_time(t0 + (t1 - t0), x)


class WritesIntoItsCarry(Trapezoid):
    def init(self, f, t, x, slope):
        return super().init(f, t, x, slope), torch.zeros_like(x)

    def step(self, f, t0, t1, x, carry):
        known, count = carry
        step = super().step(f, t0, t1, x, known)
        return step._replace(carry=(step.carry, count.add_(1)), retry=carry)

    def interpolant(self, f, t0, t1, x0, step):
        return super().interpolant(f, t0, t1, x0, step._replace(carry=step.carry[0]))


class RestsOnTheStepBefore(Trapezoid):
    def init(self, f, t, x, slope):
        return super().init(f, t, x, slope), torch.zeros_like(x)

    def step(self, f, t0, t1, x, carry):
        known, before = carry
        step = super().step(f, t0, t1, x, known)
        new = step.x + 1e-4 * over_state(t1 - t0, x) * before
        return step._replace(x=new, carry=(self.next_carry(f, t1, new), step.error), retry=carry)

    def interpolant(self, f, t0, t1, x0, step):
        return super().interpolant(f, t0, t1, x0, step._replace(carry=step.carry[0]))


class ReusesMemoryThatItHandedOut(Trapezoid):
    memory = None

    def estimate(self, dt, first, second):
        error = super().estimate(dt, first, second)
        if torch.is_grad_enabled():
            return error
        if self.memory is None or self.memory.shape != error.shape:
            self.memory = torch.empty_like(error)
        return self.memory.copy_(error)


class RemembersBesideItsCarry(Trapezoid):
    longest = 0.0

    def estimate(self, dt, first, second):
        self.longest = max(self.longest, first.detach().abs().max().item())
        return (1 + 1e-6 * self.longest) * super().estimate(dt, first, second)


class CouplesSamples(Trapezoid):
    def estimate(self, dt, first, second):
        error = super().estimate(dt, first, second)
        return error + 0.1 * error.mean(dim=0) if error.dim() > 1 else error


class CouplesSamplesByRounding(Trapezoid):
    def estimate(self, dt, first, second):
        error = super().estimate(dt, first, second)
        return error * (1 + 1e-15 * first.sum(dim=0)) if error.dim() > 1 else error


class StepsBatchesOtherwise(Trapezoid):
    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second) * (1 if x.dim() == 1 else 1 + 1e-8 * dt)


class EstimateOfAnotherOrder(Trapezoid):
    def estimate(self, dt, first, second):
        return dt * super().estimate(dt, first, second)


class EstimatesTooLittle(Trapezoid):
    def estimate(self, dt, first, second):
        return 1e-4 * super().estimate(dt, first, second)


class KeepsItsEstimateSecret(Trapezoid):
    error_order = None


class OrderThatIsNoNumber(Trapezoid):
    error_order = True


class MissesTheEnd(Trapezoid):
    def interpolant(self, f, t0, t1, x0, step):
        coefficients = super().interpolant(f, t0, t1, x0, step)
        return torch.cat([coefficients[..., :3, :], coefficients[..., 3:, :] + 1e-9], dim=-2)


class Kinked(Trapezoid):
    dense_degree = 1

    def interpolant(self, f, t0, t1, x0, step):
        return torch.stack([x0, step.x - x0], dim=-2)


class ClaimsAnotherDegree(Trapezoid):
    dense_degree = 5


class OffBetweenTheSteps(Trapezoid):
    """Right at both ends, and of first order between them."""

    dense_degree = 4

    def interpolant(self, f, t0, t1, x0, step):
        cubic = super().interpolant(f, t0, t1, x0, step)
        height = over_state(t1 - t0, x0) * torch.ones_like(x0)
        bump = torch.stack([height, -2 * height, height], dim=-2)  # theta^2 (1 - theta)^2
        return torch.cat([cubic[..., :2, :], cubic[..., 2:, :] + bump[..., :2, :], bump[..., 2:, :]], dim=-2)


class EvaluatesInItsInterpolant(Trapezoid):
    def interpolant(self, f, t0, t1, x0, step):
        f(state_time(t0, x0), x0)
        return super().interpolant(f, t0, t1, x0, step)


class CouplesSamplesBetweenTheSteps(Trapezoid):
    dense_degree = 4

    def interpolant(self, f, t0, t1, x0, step):
        cubic = super().interpolant(f, t0, t1, x0, step)
        common = 1e-15 * x0.mean(dim=0, keepdim=True).expand_as(x0)
        return torch.cat([cubic, common.unsqueeze(-2)], dim=-2)


class KeepsTheField(Trapezoid):
    field = None

    def init(self, f, t, x, slope):
        self.field = self.field or f
        return super().init(f, t, x, slope)

    def next_carry(self, f, t1, new):
        return super().next_carry(self.field, t1, new)


class SwitchesGradientsOn(Trapezoid):
    def step(self, f, t0, t1, x, carry):
        with torch.enable_grad():
            return super().step(f, t0, t1, x, carry)


class Detaches(Trapezoid):
    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second.detach())


class DetachesItsEstimate(Trapezoid):
    def estimate(self, dt, first, second):
        return super().estimate(dt, first, second).detach()


class DetachesBetweenTheSteps(Trapezoid):
    def interpolant(self, f, t0, t1, x0, step):
        return super().interpolant(f, t0, t1, x0, step._replace(x=step.x.detach()))


class ForgetsItsParameter(Trapezoid):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second) + self.scale.item() * dt**3


class DividesByTheStep(Trapezoid):
    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second) + 0 * first / dt


class ErrorOfNothing(Trapezoid):
    def estimate(self, dt, first, second):
        return super().estimate(dt, first, second) + 1e-12


class WrongInverse(Trapezoid):
    def inverse_step(self, f, t0, t1, x, carry):
        back = self.step(f, t1, t0, x, carry)
        return back.x, back.carry


class DiffersFromItsCopies(Trapezoid):
    def __init__(self):
        super().__init__()
        self.shift = 1e-9 * torch.rand((), dtype=torch.float64)

    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second) + (dt * self.shift).to(x.dtype)


class RetryOfAnotherStructure(Trapezoid):
    def step(self, f, t0, t1, x, carry):
        step = super().step(f, t0, t1, x, Known(carry[0]))
        return step._replace(retry=(carry[0], None))


class RetryOfAnotherPlace(Trapezoid):
    def step(self, f, t0, t1, x, carry):
        step = super().step(f, t0, t1, x, carry)
        return step._replace(retry=Known(1.001 * carry.slope))


class CompletesToAnotherState(Trapezoid):
    def complete(self, f, t1, step):
        return step._replace(x=step.x + 1e-12 * (step.x - 1) * step.stages[1])


class CompletesForNothing(Trapezoid):
    def complete(self, f, t1, step):
        f(state_time(t1, step.x), step.x)
        return step


class WidensTheState(Trapezoid):
    def advance(self, x, dt, first, second):
        new = super().advance(x, dt, first, second)
        return new.double() if new.dtype == torch.float32 else new


class HandsOverTimesOfAnotherDtype(Trapezoid):
    def end(self, t0, t1, x):
        return super().end(t0, t1, x).double()


class LosesDigits(Trapezoid):
    def advance(self, x, dt, first, second):
        rise = super().advance(0 * x, dt, first, second)
        return x + (rise.bfloat16() if x.dtype == torch.float32 else rise).to(x.dtype)


class LosesImaginaryParts(Trapezoid):
    def advance(self, x, dt, first, second):
        rise = super().advance(0 * x, dt, first, second)
        return x + (rise.real if x.is_complex() else rise)


def both(name):
    return {name, f"{name}_in_reversed_time"}


ORDER, DENSE, DERIVATIVE = map(both, ("order", "order_between_the_steps", "order_of_the_derivative_between_the_steps"))
GRADIENTS = {"gradients_through_its_steps", "gradients_through_its_interpolant"}
FAULTS = {
    WrongWeights: {*ORDER, *DENSE, *DERIVATIVE, "meets_the_tolerance"},
    IgnoresTime: {*ORDER, *DENSE, *DERIVATIVE, "meets_the_tolerance"},
    ForwardOnly: {
        "order_in_reversed_time",
        "order_between_the_steps_in_reversed_time",
        "order_of_the_derivative_between_the_steps_in_reversed_time",
        "meets_the_tolerance",
        "stays_within_the_step",
    },
    LooksAhead: {"stays_within_the_step"},
    RoundsBeyondTheEnd: {"stays_within_the_step"},
    WritesIntoItsCarry: {"is_pure"},
    ReusesMemoryThatItHandedOut: {"is_pure"},
    RemembersBesideItsCarry: {"is_pure", "gradients_of_its_error_estimate"},
    RestsOnTheStepBefore: {"follows_from_its_start"},
    CouplesSamples: {"rows_do_not_meet", "a_batch_is_its_rows", "every_sample_solves_its_own_problem"},
    CouplesSamplesByRounding: {"rows_do_not_meet"},
    StepsBatchesOtherwise: {"a_batch_is_its_rows", "every_sample_solves_its_own_problem"},
    EstimateOfAnotherOrder: {"order_of_the_error_estimate"},
    EstimatesTooLittle: {"meets_the_tolerance"},
    KeepsItsEstimateSecret: {"estimates_its_error"},
    OrderThatIsNoNumber: {"states_its_orders"},
    MissesTheEnd: {"meets_the_states_at_both_ends", "its_derivative_meets_the_field_at_both_ends"},
    Kinked: {"its_derivative_meets_the_field_at_both_ends"},
    ClaimsAnotherDegree: {"is_a_polynomial_of_the_stated_degree", "every_sample_solves_its_own_problem"},
    OffBetweenTheSteps: {*DENSE, *DERIVATIVE},
    EvaluatesInItsInterpolant: {"counts_its_evaluations"},
    CouplesSamplesBetweenTheSteps: {"rows_do_not_meet_between_the_steps"},
    KeepsTheField: {"counts_every_evaluation"},
    SwitchesGradientsOn: {"follows_grad_mode"},
    Detaches: GRADIENTS,
    DetachesItsEstimate: {"gradients_of_its_error_estimate"},
    DetachesBetweenTheSteps: {"gradients_through_its_interpolant"},
    ForgetsItsParameter: GRADIENTS,
    DividesByTheStep: {"a_step_of_no_length"},
    ErrorOfNothing: {"a_step_of_no_length"},
    WrongInverse: {"inverse_step"},
    DiffersFromItsCopies: {"copies_step_alike"},
    RetryOfAnotherStructure: {"carry_and_retry_are_alike", "every_sample_solves_its_own_problem"},
    RetryOfAnotherPlace: {"a_retry_is_a_new_start"},
    CompletesToAnotherState: {"completing_changes_nothing"},
    CompletesForNothing: {"what_completes_a_step_is_reused"},
    WidensTheState: {"follows_the_state"},
    HandsOverTimesOfAnotherDtype: {"follows_the_state"},
    LosesDigits: {"accuracy_in_every_dtype"},
    LosesImaginaryParts: {"accuracy_in_every_dtype"},
}


def contract(method, **settings):
    settings = {"make": lambda self: method(), "most_steps": 120, **settings}
    return type("Contract", (StepperContract, InterpolantContract), settings)


@pytest.mark.parametrize("method", [Trapezoid, Invertible], ids=lambda method: method.__name__)
def test_a_method_without_fault_keeps_every_promise(method, broken_promises):
    assert broken_promises(contract(method)) == set()


@pytest.mark.parametrize("method", FAULTS, ids=lambda method: method.__name__)
def test_a_fault_breaks_the_promises_that_speak_of_it(method, broken_promises):
    assert broken_promises(contract(method)) == FAULTS[method]


def test_every_promise_is_broken_by_some_fault():
    promises = {name.removeprefix("test_") for name in dir(contract(Trapezoid)) if name.startswith("test_")}
    assert set().union(*FAULTS.values()) == promises - {"compiles"}


def test_no_promise_hides_another():
    """A class that inherits both contracts has the tests of both."""
    steps, between = (
        {name for name in vars(c) if name.startswith("test_")} for c in (StepperContract, InterpolantContract)
    )
    assert steps.isdisjoint(between)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (ForwardOnly, {"reversed_time": False}),
        (CouplesSamples, {"per_sample": False}),
        (Detaches, {"differentiable": False}),
        (Kinked, {"smooth": False}),
        (WidensTheState, {"dtypes": (torch.float64, torch.complex128)}),
        (LosesImaginaryParts, {"dtypes": (torch.float64,)}),
    ],
)
def test_what_is_not_claimed_is_not_tested(method, settings, broken_promises):
    assert broken_promises(contract(method, **settings)) == set()


class AddsTheParts(Trapezoid):
    """The method without a fault on a field that is a sum."""

    split = "additive"

    def step(self, f, t0, t1, x, carry):
        return super().step(lambda t, x: f(t, x, "a") + f(t, x, "b"), t0, t1, x, carry)


class ForgetsTheTimeOfOnePart(Verlet):
    def step(self, f, t0, t1, x, carry):
        return super().step(lambda t, x, part: f(state_time(t0, x) if part == "a" else t, x, part), t0, t1, x, carry)


class ForgetsOnePart(AddsTheParts):
    def step(self, f, t0, t1, x, carry):
        return super().step(lambda t, x, part: (part == "a") * f(t, x, part), t0, t1, x, carry)


FORGOTTEN = {*ORDER, *DENSE, *DERIVATIVE, "order_of_the_error_estimate", "meets_the_tolerance"}
FORGOTTEN |= {"its_derivative_meets_the_field_at_both_ends", "follows_from_its_start"}
PAIR = {"problem": ForcedRadialOscillator(), "length": 0.2}


@pytest.mark.parametrize(
    ("method", "settings", "broken"),
    [
        (AddsTheParts, {}, set()),
        (ForgetsOnePart, {}, FORGOTTEN),
        (Verlet, PAIR, set()),
        (ForgetsTheTimeOfOnePart, PAIR, {*ORDER, *DENSE, *DERIVATIVE, "inverse_step"}),
        (Yoshida4, {**PAIR, "reach": {"a": 0.36}}, set()),
        (Yoshida4, {**PAIR, "reach": {"a": 0.34}}, {"stays_within_the_step"}),
        (Yoshida4, {**PAIR, "reach": {"b": 0.36}}, {"stays_within_the_step"}),
    ],
)
def test_methods_of_split_fields(method, settings, broken, broken_promises):
    assert broken_promises(contract(method, **settings)) == broken


class DiffersCompiled(Trapezoid):
    def advance(self, x, dt, first, second):
        return super().advance(x, dt, first, second) + (1e-6 if torch.compiler.is_compiling() else 0)


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solves")
def test_a_compiled_solve_is_compared():
    contract(Trapezoid, compiles=True)().test_compiles()
    with (
        torch.compiler.set_stance("default", force_backend="eager"),
        pytest.raises(AssertionError, match="expected a compiled solve to give the states of an eager one"),
    ):
        contract(DiffersCompiled, compiles=True)().test_compiles()


def test_without_a_stepper_it_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"TestMine\.make: expected a method that returns the stepper"):
        type("TestMine", (StepperContract,), {})().test_order()


def test_a_failure_says_what_was_measured():
    with pytest.raises(AssertionError, match=r"order: measured (0\.9|1\.0)\d forward in time, expected 2 \+- 0\.2"):
        contract(IgnoresTime, most_steps=600)().test_order()


def test_unittest_runs_it_too():
    class TestTrapezoid(contract(Trapezoid), unittest.TestCase):
        pass

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(TestTrapezoid).run(result)
    assert result.wasSuccessful()
    assert result.testsRun > 30
    assert len(result.skipped) == 2  # no inverse, not compiled
