"""Every method for roots and every line search of ours keeps its contract."""

import pytest
import torch

from dyn_numerics import (
    Anderson,
    Armijo,
    Bisection,
    Broyden,
    Chord,
    FixedPointIteration,
    LearnedLineSearch,
    LevenbergMarquardt,
    NeuralAnderson,
    NewtonKrylov,
)
from dyn_numerics.contracts import LineSearchContract, RootStepperContract, SineSystem
from dyn_numerics.root.by_name import ROOT_STEPPERS


def disturbed(module):
    """A module as training leaves it: its parameters are not what they were made."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return module


WITH_LOOPS = (Bisection, LevenbergMarquardt, NewtonKrylov)


class TestRootSteppers(RootStepperContract):
    """All that have a name."""

    @pytest.fixture(autouse=True, params=ROOT_STEPPERS.values(), ids=ROOT_STEPPERS.keys())
    def stepper(self, request):
        self.make = request.param
        self.reads = request.param in WITH_LOOPS
        if request.param is Bisection:
            self.problem = SineSystem(coupled=False)


OTHERS = [
    lambda: Chord(every=2),
    lambda: Broyden(update="bad", jacobian=-1.0),
    lambda: Broyden(memory=3, jacobian="scaled"),
    lambda: Anderson(m=2, damping=0.7),
    lambda: FixedPointIteration(0.5),
]


class TestOtherSettings(RootStepperContract):
    @pytest.fixture(autouse=True, params=OTHERS, ids=lambda make: repr(make()))
    def stepper(self, request):
        self.make = request.param


class TestBracketedBisection(RootStepperContract):
    problem = SineSystem(coupled=False)

    def make(self):
        return Bisection(-5.0, 5.0)


class TestNeuralAnderson(RootStepperContract):
    def make(self):
        torch.manual_seed(0)
        return disturbed(NeuralAnderson(m=3))


class TestArmijo(LineSearchContract):
    def make(self):
        return Armijo()


class TestLearnedLineSearch(LineSearchContract):
    def make(self):
        torch.manual_seed(0)
        return disturbed(LearnedLineSearch())


@pytest.mark.gpu
class TestOnTheDevice(TestRootSteppers):
    device = "cuda"
