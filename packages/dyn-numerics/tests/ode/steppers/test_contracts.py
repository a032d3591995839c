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
from dyn_numerics.contracts import ForcedRadialOscillator, InterpolantContract, StepperContract
from dyn_numerics.contracts.forced_growth import ForcedGrowth
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.steppers.by_name import STEPPERS
from dyn_numerics.ode.times import state_time

REVERSIBLE = {
    "reversible_heun": ReversibleHeun,
    "alf": AsynchronousLeapfrog,
    "damped alf": partial(AsynchronousLeapfrog, 0.9),
    **{base: partial(ReversibleRungeKutta, base) for base in ("bosh3", "rk4", "dopri8")},
    "trainable": lambda: ReversibleRungeKutta(Dopri5(trainable=True)),
}


def _is_explicit(stepper):
    return stepper.split is None and not stepper.implicit and stepper.one_step


class TestExplicit(StepperContract, InterpolantContract):
    """All one-step methods that start explicitly and have a name, but for those that step split fields."""

    @pytest.fixture(autouse=True, params=[*(name for name, make in STEPPERS.items() if _is_explicit(make())), "auto"])
    def stepper(self, request):
        self.make = STEPPERS[request.param]


class TestRosenbrock(StepperContract, InterpolantContract):
    """Methods whose dense output does not know the field at the end of the step."""

    smooth = False
    length = 2.0

    @pytest.fixture(autouse=True, params=["rosenbrock23", "rodas5p"])
    def stepper(self, request):
        self.make = STEPPERS[request.param]


class TestDiagonallyImplicit(StepperContract, InterpolantContract):
    @pytest.fixture(
        autouse=True,
        params=[
            "implicit_euler",
            "trapezoid",
            "kvaerno5",
            *(pytest.param(name, marks=pytest.mark.slow) for name in ("kvaerno3", "kencarp4")),
        ],
    )
    def stepper(self, request):
        self.make = STEPPERS[request.param]
        self.reach = {"f": 0.2304} if request.param == "kvaerno5" else {}


class TestSymplectic(StepperContract, InterpolantContract):
    problem = ForcedRadialOscillator()
    length = 0.2  # so short that the error of the states does not cover that between them

    @pytest.fixture(autouse=True, params=["verlet", "yoshida4"])
    def stepper(self, request):
        self.make = STEPPERS[request.param]
        self.reach = {"a": 0.36} if request.param == "yoshida4" else {}


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


class TestAdamsBashforth(StepperContract, InterpolantContract):
    @pytest.fixture(autouse=True, params=[1, 2, 3, 4])
    def stepper(self, request):
        self.make = partial(AdamsBashforth, request.param)
        if request.param == 4:
            self.derivative_order = 4  # that of the states, which err by more than the cubic between them


class TestAdamsMoulton(StepperContract, InterpolantContract):
    @pytest.fixture(autouse=True, params=[1, 2, 3, 4])
    def stepper(self, request):
        self.make = partial(AdamsMoulton, request.param)
        if request.param == 4:
            # Where the first steps err by less than the others, and the states by less than the cubic between them.
            self.problem, self.length_of = ForcedGrowth(), lambda order: 1.0 if order == 3 else 1.5

    def test_meets_the_tolerance(self):
        if self.made().order == 1:
            pytest.skip("errors of so many steps add up to more")
        super().test_meets_the_tolerance()


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
