"""Test suites to inherit: what steppers, dense output, controllers and methods for roots promise, checked on your own.

A class that inherits one says what is under test, and pytest finds the tests:

    class TestMine(StepperContract, InterpolantContract):
        def make(self):
            return MyStepper()

Nothing here imports pytest. With `unittest.TestCase` as a further base class the standard library runs the same tests.
"""

from dyn_numerics.contracts.controller import ControllerContract
from dyn_numerics.contracts.forced_growth import ForcedGrowth
from dyn_numerics.contracts.forced_oscillator import ForcedOscillator
from dyn_numerics.contracts.forced_radial_oscillator import ForcedRadialOscillator
from dyn_numerics.contracts.interpolant import InterpolantContract
from dyn_numerics.contracts.line_search import LineSearchContract
from dyn_numerics.contracts.reference_problem import ReferenceProblem
from dyn_numerics.contracts.reference_system import ReferenceSystem
from dyn_numerics.contracts.root_stepper import RootStepperContract
from dyn_numerics.contracts.sine_system import SineSystem
from dyn_numerics.contracts.stepper import StepperContract

__all__ = [
    "ControllerContract",
    "ForcedGrowth",
    "ForcedOscillator",
    "ForcedRadialOscillator",
    "InterpolantContract",
    "LineSearchContract",
    "ReferenceProblem",
    "ReferenceSystem",
    "RootStepperContract",
    "SineSystem",
    "StepperContract",
]
