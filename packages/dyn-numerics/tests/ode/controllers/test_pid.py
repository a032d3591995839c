"""Step-size control: the formula by hand, its limits, and that an odd choice of coefficients never stands still."""

import math
import pickle

import pytest
import torch

from dyn_numerics import PIDController, Tsit5, odeint

COEFFICIENTS = {"I": (0.0, 1.0, 0.0), "PI": (0.4, 0.3, 0.0), "PID": (0.3, 0.25, 0.1), "negative p": (-0.1, 0.6, 0.0)}
ERROR_ORDER = 4


def judge(controller, *errors):
    """The verdict on the last of a row of attempts."""
    memory = controller.init()
    for error in errors:
        verdict = controller.judge(error, ERROR_ORDER, memory)
        memory = verdict.memory
    return verdict


@pytest.mark.parametrize(("p", "i", "d"), COEFFICIENTS.values(), ids=COEFFICIENTS.keys())
def test_factor_by_hand(p, i, d):
    controller = PIDController(p, i, d, safety=0.8)
    before, middle, now = 0.5, 0.2, 0.6
    verdict = judge(controller, before, middle, now)
    k = ERROR_ORDER + 1
    # Söderlind's (e_n / e_(n-1))^-p e_n^-i (e_n e_(n-2) / e_(n-1)^2)^-d, each to the power 1 / k
    expected = 0.8 * ((now / middle) ** -p * now**-i * (now * before / middle**2) ** -d) ** (1 / k)
    assert verdict.accept is True
    assert verdict.factor == pytest.approx(expected, rel=1e-14)


def test_the_default_is_the_classical_controller():
    assert judge(PIDController(), 0.01, 0.5).factor == pytest.approx(0.9 * 0.5 ** (-1 / 5), rel=1e-14)
    assert judge(PIDController(), 32.0).factor == pytest.approx(0.9 / 2, rel=1e-14)


@pytest.mark.parametrize(
    ("error", "accept"), [(0.0, True), (1.0, True), (math.nextafter(1, 2), False), (math.inf, False)]
)
def test_one_is_just_acceptable(error, accept):
    assert judge(PIDController(), error).accept is accept


@pytest.mark.parametrize(("p", "i", "d"), COEFFICIENTS.values(), ids=COEFFICIENTS.keys())
@pytest.mark.parametrize(("error", "limit"), [(0.0, 7.0), (1e-30, 7.0), (1e30, 0.3), (math.inf, 0.3)])
def test_limits(p, i, d, error, limit):
    verdict = judge(PIDController(p, i, d, factor_min=0.3, factor_max=7.0), error)
    assert verdict.factor == limit


def test_no_growth_right_after_a_rejection():
    controller = PIDController()
    assert judge(controller, 0.5, 1e-6).factor == 10
    assert judge(controller, 5.0, 1e-6).factor == 1
    assert judge(controller, 5.0, 1e-6, 1e-6).factor == 10
    assert judge(controller, 5.0, 0.99).factor == pytest.approx(
        0.9 * 0.99 ** (-1 / 5), rel=1e-14
    )  # shrinking is allowed


def test_a_rejection_leaves_the_memory_alone():
    controller = PIDController(0.4, 0.3, 0.1)
    interrupted = judge(controller, 0.1, 0.2, 3.0, 1.5, 0.9).factor
    assert interrupted == pytest.approx(judge(controller, 0.1, 0.2, 0.9).factor, rel=1e-14)


@pytest.mark.parametrize("coefficients", [(0.3, 0.3, 0.5), (-0.3, 0.6, 0.0), (0.0, 0.1, 0.4)])
@pytest.mark.parametrize("history", [(1e-10, 0.9), (1e-10, 1e-10), (0.9, 1e-10), ()])
def test_every_retry_is_shorter(coefficients, history):
    """Otherwise the same step would be tried until `max_steps`: its error and the memory do not change."""
    verdict = judge(PIDController(*coefficients), *history, 1.0001)
    assert not verdict.accept
    assert verdict.factor <= 0.9


@pytest.mark.parametrize(("p", "i", "d"), COEFFICIENTS.values(), ids=COEFFICIENTS.keys())
def test_every_kind_solves(p, i, d, growth):
    controller = PIDController(p, i, d)
    t, x = odeint(growth, torch.ones(1).double(), [0.0, 3.0, 10.0], controller=controller, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(x[:, 0], growth.exact(t), rtol=3e-6, atol=0)


def test_factor_max_bounds_the_growth_of_steps(growth):
    sol = odeint(growth, torch.ones(1).double(), [0.0, 10.0], save="steps", controller=PIDController(factor_max=1.5))
    steps = sol.t.diff()
    assert (steps[1:-1] / steps[:-2]).max() <= 1.5 + 1e-12
    wild = odeint(growth, torch.ones(1).double(), [0.0, 10.0], save="steps").t.diff()
    assert (wild[1:-1] / wild[:-2]).max() > 1.5


@pytest.mark.parametrize("end", [3.0, -3.0])
def test_first_step_is_honoured(end, growth):
    controller = PIDController(first_step=0.03125)
    sol = odeint(growth, torch.ones(1).double(), [0.0, end], save="steps", controller=controller)
    assert sol.t[1].item() == math.copysign(0.03125, end)


def test_first_step_saves_the_evaluation_that_estimates_it(growth, counted):
    estimated, given = counted(growth), counted(growth)
    steps = odeint(estimated, torch.ones(1).double(), [0.0, 3.0], save="steps").t
    first = PIDController(first_step=steps[1].item())
    sol = odeint(given, torch.ones(1).double(), [0.0, 3.0], save="steps", controller=first)
    torch.testing.assert_close(sol.t, steps, rtol=0, atol=0)
    assert given.calls == estimated.calls - 1 == sol.stats.n_evals


def test_first_step_longer_than_the_span_takes_the_span():
    sol = odeint(lambda t, x: 0 * x, torch.ones(1), [0.0, 1.0], controller=PIDController(first_step=50.0))
    assert sol.stats.n_steps == 1
    assert sol.x[-1].item() == 1


def fast_and_slow(t, x):
    fast, slow = x
    return 40 * torch.cos(40 * t) + 0 * fast, -slow


def steps_with(norm):
    x0 = (torch.zeros(2).double(), torch.ones(3).double())
    return odeint(fast_and_slow, x0, [0.0, 1.0], controller=PIDController(norm=norm)).stats.n_accepted.item()


def test_norm_of_its_own_has_an_effect():
    def seminorm(error):
        return error[1].abs().max()

    def fifty_times_as_strict(error):
        return 50 * torch.cat(error).abs().max()

    default = steps_with(None)
    assert steps_with(seminorm) < default / 3
    assert steps_with(fifty_times_as_strict) > default * 1.5


def test_norm_sees_the_structure_of_the_state():
    seen = []

    def norm(error):
        seen.append((type(error), [leaf.shape for leaf in error]))
        return torch.cat(error).abs().max()

    steps_with(norm)
    assert set(map(str, seen)) == {str((tuple, [torch.Size([2]), torch.Size([3])]))}


def test_norm_may_be_a_module():
    class Largest(torch.nn.Module):
        calls = 0

        def forward(self, error):
            self.calls += 1
            return error.abs().max()

    controller = PIDController(norm=Largest())
    assert [type(module).__name__ for module in controller.children()] == ["Largest"]
    odeint(lambda t, x: -x, torch.ones(2), [0.0, 1.0], controller=controller)
    assert controller.norm.calls > 0


@pytest.mark.parametrize("norm", [None, torch.nn.L1Loss(), lambda error: error.sum()])
@pytest.mark.parametrize("other", [None, torch.nn.L1Loss(), lambda error: error.max()])
def test_the_same_control_for_another_problem(norm, other):
    controller = PIDController(0.4, 0.3, safety=0.8, first_step=0.1, norm=norm)
    twin = controller.with_norm(other)
    assert (twin.norm, twin.first_step, twin.safety, twin.p) == (other, None, 0.8, 0.4)
    assert (controller.norm, controller.first_step) == (norm, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": math.nan}, "p: got nan, expected a finite number"),
        ({"i": math.inf}, "i: got inf, expected a finite number"),
        ({"d": math.nan}, "d: got nan, expected a finite number"),
        ({"i": 0.0}, "p . i . d: got 0.0, expected more than 0"),
        ({"p": -1.0, "i": 0.5}, "p . i . d: got -0.5, expected more than 0"),
        ({"safety": 0.0}, "safety: got 0.0, expected a number in"),
        ({"safety": 1.0}, "safety: got 1.0, expected a number in"),
        ({"factor_min": 0.0}, "factor_min: got 0.0, expected a number in"),
        ({"factor_min": 1.0}, "factor_min: got 1.0, expected a number in"),
        ({"factor_max": 1.0}, "factor_max: got 1.0, expected a number above 1"),
        ({"first_step": 0.0}, "first_step: got 0.0, expected a positive number"),
        ({"first_step": -1.0}, "first_step: got -1.0, expected a positive number"),
        ({"first_step": math.inf}, "first_step: got inf, expected a positive number"),
    ],
)
def test_bad_coefficients_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PIDController(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": "a"}, "p: got a str, expected a number"),
        ({"first_step": torch.tensor(0.1)}, "first_step: got a Tensor, expected a number"),
        ({"norm": "rms"}, "norm: got a str, expected a function"),
    ],
)
def test_settings_of_another_type_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        PIDController(**options)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (lambda error: error.abs(), r"norm: returned a tensor \[3\], expected a real tensor of one element"),
        (lambda error: 1.0, "norm: returned a float, expected a real tensor"),
        (lambda error: error.sum() + 0j, r"norm: returned a tensor \[\], expected a real tensor"),
    ],
)
def test_what_a_norm_returns(norm, message):
    with pytest.raises(TypeError, match=message):
        odeint(lambda t, x: -x, torch.ones(3), [0.0, 1.0], controller=PIDController(norm=norm))


def test_module_manners():
    controller = PIDController(0.4, 0.3, first_step=0.1)
    assert repr(controller) == "PIDController(p=0.4, i=0.3, d=0.0)"
    again = pickle.loads(pickle.dumps(controller))
    assert judge(again, 0.3, 0.5) == judge(controller, 0.3, 0.5)
    assert again.first_step == 0.1
    assert controller.adaptive
    assert Tsit5().error_order == ERROR_ORDER
