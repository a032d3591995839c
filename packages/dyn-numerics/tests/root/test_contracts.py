"""Every method for roots and every line search of ours keeps its contract."""

import pytest

from dyn_numerics import Anderson, Armijo, Broyden, Chord, FixedPointIteration
from dyn_numerics.contracts import LineSearchContract, RootStepperContract
from dyn_numerics.root.by_name import ROOT_STEPPERS


class TestRootSteppers(RootStepperContract):
    """All that have a name."""

    @pytest.fixture(autouse=True, params=ROOT_STEPPERS.values(), ids=ROOT_STEPPERS.keys())
    def stepper(self, request):
        self.make = request.param


OTHERS = [
    Chord(every=2),
    Broyden(update="bad", jacobian=-1.0),
    Broyden(memory=3, jacobian="scaled"),
    Anderson(m=2, damping=0.7),
    FixedPointIteration(0.5),
]


class TestOtherSettings(RootStepperContract):
    @pytest.fixture(autouse=True, params=OTHERS, ids=repr)
    def stepper(self, request):
        self.make = lambda: request.param


class TestArmijo(LineSearchContract):
    def make(self):
        return Armijo()


@pytest.mark.gpu
class TestOnTheDevice(TestRootSteppers):
    device = "cuda"
