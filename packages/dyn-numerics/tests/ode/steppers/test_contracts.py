"""Every stepper of ours keeps the contracts."""

import pytest

from dyn_numerics import Dopri5, Heun, RungeKutta2, Tsit5
from dyn_numerics.contracts import InterpolantContract, StepperContract
from dyn_numerics.ode.steppers.by_name import STEPPERS


class TestSteppers(StepperContract, InterpolantContract):
    """All that have a name."""

    @pytest.fixture(autouse=True, params=STEPPERS.values(), ids=STEPPERS.keys())
    def stepper(self, request):
        self.make = request.param


class TestRungeKutta2(StepperContract, InterpolantContract):
    def make(self):
        return RungeKutta2(0.6)


class TestTrainable(StepperContract, InterpolantContract):
    """Tables whose coefficients are parameters; Hermite's cubic has order 4 and a derivative of order 3."""

    @pytest.fixture(autouse=True, params=[Heun, Dopri5, Tsit5], ids=lambda kind: kind.__name__)
    def stepper(self, request):
        self.make = lambda: request.param(trainable=True)
