"""Every stepper of ours keeps the contracts."""

from functools import partial

import pytest
import torch
from torch.func import jvp, vjp

from dyn_numerics import (
    AdamsBashforth,
    AdamsMoulton,
    AsynchronousLeapfrog,
    Dopri5,
    Heun,
    ReversibleHeun,
    ReversibleRungeKutta,
    RungeKutta2,
    Step,
    Stepper,
    Tsit5,
)
from dyn_numerics.contracts import InterpolantContract, StepperContract
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.steppers.by_name import STEPPERS
from dyn_numerics.ode.times import state_time


REVERSIBLE = {
    "damped alf": partial(AsynchronousLeapfrog, 0.9),
    **{base: partial(ReversibleRungeKutta, base) for base in ("heun", "bosh3", "rk4", "dopri5", "dopri8")},
    "trainable": lambda: ReversibleRungeKutta(Dopri5(trainable=True)),
}


class TestSteppers(StepperContract, InterpolantContract):
    """All that have a name."""

    @pytest.fixture(autouse=True, params=STEPPERS.values(), ids=STEPPERS.keys())
    def stepper(self, request):
        self.make = request.param
        self.smooth = request.param not in (ReversibleHeun, AsynchronousLeapfrog)  # slopes at other states


class TestRungeKutta2(StepperContract, InterpolantContract):
    def make(self):
        return RungeKutta2(0.6)


class TestReversible(StepperContract, InterpolantContract):
    """Derivatives of their dense output are slopes at other states."""

    smooth = False

    @pytest.fixture(autouse=True, params=REVERSIBLE.values(), ids=REVERSIBLE.keys())
    def stepper(self, request):
        self.make = request.param
        if self.make().order > 5:
            self.length = 3.0  # over longer spans its errors fall faster at first


class TestMultistep(StepperContract, InterpolantContract):
    """Orders that have no name of their own."""

    @pytest.fixture(
        autouse=True,
        params=[partial(kind, order) for kind in (AdamsBashforth, AdamsMoulton) for order in (1, 2, 3)],
        ids=lambda make: f"{make.func.__name__}({make.args[0]})",
    )
    def stepper(self, request):
        self.make = request.param


class TestTrainable(StepperContract, InterpolantContract):
    """Tables whose coefficients are parameters; Hermite's cubic has order 4 and a derivative of order 3."""

    @pytest.fixture(autouse=True, params=[Heun, Dopri5, Tsit5], ids=lambda kind: kind.__name__)
    def stepper(self, request):
        self.make = lambda: request.param(trainable=True)


class Taylor(Stepper):
    """Taylor's method of order 2, which differentiates the field along the solution."""

    order = 2
    error_order = 1

    def init(self, f, t, x, slope):
        return f(t, x) if slope is None else slope

    def step(self, f, t0, t1, x, carry):
        dt = over_state(t1 - t0, x)
        correction = 0.5 * dt * dt * self.acceleration(f, state_time(t0, x), x, carry)
        new = x + dt * carry + correction
        return Step(new, correction, f(state_time(t1, new), new), carry, carry)

    def acceleration(self, f, t, x, slope):
        return jvp(f, (t, x), (torch.ones_like(t), slope))[1]

    def complete(self, f, t1, step):
        return step

    def interpolant(self, f, t0, t1, x0, step):
        return cubic_hermite(x0, step.x, step.stages, step.carry, over_state(t1 - t0, x0))


class TaylorByReverseMode(Taylor):
    def acceleration(self, f, t, x, slope):
        _, pull = vjp(f, t, x)
        _, push = vjp(pull, torch.zeros_like(slope))  # the derivative of a pullback is the pushforward
        return push((torch.ones_like(t), slope))[0]


class TestThatDifferentiates(StepperContract, InterpolantContract):
    """Derivatives of the field within a step."""

    @pytest.fixture(autouse=True, params=[Taylor, TaylorByReverseMode], ids=lambda kind: kind.__name__)
    def stepper(self, request):
        self.make = request.param
        if request.param is TaylorByReverseMode:
            self.dtypes = (torch.float64, torch.float32)  # of complex numbers it would be the adjoint


@pytest.mark.gpu
class TestOnTheDevice(StepperContract, InterpolantContract):
    device = "cuda"

    @pytest.fixture(
        autouse=True, params=[Dopri5, lambda: Heun(trainable=True), Taylor], ids=["dopri5", "heun", "taylor"]
    )
    def stepper(self, request):
        self.make = request.param
