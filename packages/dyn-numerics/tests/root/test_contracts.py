"""Every method for roots of ours keeps the contract."""

import pytest

from dyn_numerics import Anderson, Broyden, Chord, FixedPointIteration
from dyn_numerics.contracts import RootStepperContract
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
